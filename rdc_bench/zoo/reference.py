"""References to repositories on the Hugging Face Hub: ``hf://owner/repo``, optionally ``@revision``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from rdc_bench.core.errors import UserError

SCHEME = "hf://"
RIGHT = "write hf://owner/repo or hf://owner/repo@revision"

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubReference:
    """A repository, and the branch, tag or commit of it that is meant (None: the default branch)."""

    owner: str
    repo: str
    revision: str | None = None

    @property
    def repo_id(self) -> str:
        """``owner/repo``, as the Hub's client writes it."""
        return f"{self.owner}/{self.repo}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit hash, which always leads to the same files."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubReference:
        """The same repository at a commit."""
        return replace(self, revision=commit)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")


def is_reference(name: str) -> bool:
    """Whether a name is meant as a reference to the Hub; whether it is a good one, :func:`parse_reference` says."""
    return name.lstrip().lower().startswith("hf:")


def parse_reference(text: str) -> HubReference:
    """Parse ``hf://owner/repo[@revision]``.

    Owner, repository and revision must be such that neither an address nor a path in the cache built from them can lead
    elsewhere. Raises ``UserError`` saying what is wrong and what would be right.
    """
    if re.search(r"\s", text):
        raise UserError(f"{text!r}: a reference to the Hub holds no spaces; {RIGHT}")
    if not text.startswith(SCHEME):
        raise UserError(f"{text!r}: a reference to the Hub begins with {SCHEME}; {RIGHT}")
    repo_id, at, revision = text.removeprefix(SCHEME).partition("@")
    owner, slash, repo = repo_id.partition("/")
    if not (owner and slash and repo):
        raise UserError(f"{text!r}: the {'repository' if owner else 'owner'} is missing; {RIGHT}")
    if at and not revision:
        raise UserError(f"{text!r}: no revision after '@'; {RIGHT}")
    for kind, value in (("owner", owner), ("repository", repo)):
        if not _PART.fullmatch(value) or ".." in value or "--" in value or value.endswith(".git"):
            raise UserError(f"{text!r}: {value!r} cannot be the name of {_an(kind)} on the Hub; {RIGHT}")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise UserError(f"{text!r}: {revision!r} cannot be a revision: a branch, a tag or a commit hash of 40 digits")
    return HubReference(owner, repo, revision or None)


def _an(kind: str) -> str:
    return f"an {kind}" if kind == "owner" else f"a {kind}"
