"""One commit of a repository: fetching the files that its cards lead to, and checking every one of them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from rdc_bench.core.errors import UserError
from rdc_bench.core.files import file_sha256
from rdc_bench.core.version import __version__
from rdc_bench.zoo.cards import LoadedCard, every_card, read_model_card, with_parts
from rdc_bench.zoo.layout import CONFIG, LIBRARY, README, read_config, weights_beside
from rdc_bench.zoo.reference import HubReference
from rdc_bench.zoo.schema import Weights, is_elsewhere

#: How others call the weights in a repository, the most wanted first.
CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")
#: Bytes that a card, the configuration or a README may have.
LARGEST_TEXT = 1 << 20


class NotCachedError(UserError):
    """Something is not in the cache, and nothing may be fetched."""


def not_cached(reference: HubReference, what: str) -> NotCachedError:
    """The error for what only a network would bring."""
    return NotCachedError(
        f"{reference}: {what}; `rdc-bench models pull {reference}` fetches it, when HF_HUB_OFFLINE is not set"
    )


@dataclass
class Snapshot:
    """A commit, in the client's cache as far as it has been read.

    Args:
        reference: repository and commit. local: fetch nothing.
        endpoint, cache_dir: for the client. files: those read so far.
    """

    reference: HubReference
    endpoint: str | None
    cache_dir: Path | None
    local: bool
    files: list[Path] = field(default_factory=list)

    def read(self, weights: bool) -> LoadedCard:
        """Fetch and check the cards that ``config.json`` leads to and, if wanted, their weights. Returns the main card."""
        with disable_progress_bars():  # small files; the client's bars are for the weights
            (config,) = self._bring([CONFIG], "which every model of rdc-bench has")
            if README in (self._listed() or ()):
                self._bring([README], "")
            main = self._card(read_config(config, str(self.reference)).name, ())
        if weights:
            self._bring_weights({w.file: w for card in every_card(main) if (w := weights_beside(card))})
        return main

    def read_checkpoint(self) -> tuple[Path, Path]:
        """Fetch ``config.json`` and the weights of a repository that holds no cards, and check them. Returns both paths."""
        with disable_progress_bars():
            (config,) = self._bring([CONFIG], "which a repository with a network's weights has")
        name = next((name for name in CHECKPOINTS if name in (self._listed() or ())), CHECKPOINTS[0])
        (weights,) = self._download([name], "where the weights of a network lie")
        if self._intact(weights) is False:
            raise self._damaged(weights)
        return config, weights

    def _card(self, name: str, above: tuple[Path, ...]) -> LoadedCard:
        """A card with its parts, which all lie in this snapshot."""
        if is_elsewhere(name):
            raise UserError(f"{self.reference}: a card names {name}; the parts of a model on the Hub lie in its own repository")
        (path,) = self._bring([f"{name}.yaml"], f"which {above[-1].name if above else CONFIG} names")
        loaded = read_model_card(path)
        stamped = loaded.card.model_copy(update={"source": f"{self.reference}: {loaded.card.source}"})
        found = loaded.model_copy(update={"card": stamped, "hub": str(self.reference)})
        weights_beside(found)  # refuses what cannot come from a repository
        return with_parts(found, self._card, above)

    def _bring(self, names: Sequence[str], why: str) -> list[Path]:
        """Fetch small files that must be there, and check them against the commit's listing."""
        listed = self._listed()
        for name in names:
            if listed is not None and name in listed and listed[name].size > LARGEST_TEXT:
                raise UserError(f"{self.reference}: {name} has {listed[name].size} bytes; no card has more than {LARGEST_TEXT}")
        paths = self._download(names, why)
        for path in paths:
            if self._intact(path) is False:
                raise self._damaged(path)
        return paths

    def _bring_weights(self, wanted: dict[str, Weights]) -> None:
        """Fetch weights, and check them against the SHA-256 in their cards."""
        for path in self._download(list(wanted), "which a card names"):
            if file_sha256(path) == wanted[path.name].sha256:
                continue
            if self._intact(path):
                raise UserError(
                    f"{self.reference}: {path.name} is not the file that its card names (SHA-256 differs); "
                    "the repository is at fault, and another revision may be right"
                )
            raise self._damaged(path)

    def _download(self, names: Sequence[str], why: str) -> list[Path]:
        """Fetch exactly these files, where they are not here yet."""
        listed = self._listed()
        for name in names:
            if listed is not None and name not in listed:
                raise UserError(f"{self.reference}: the repository lacks {name}, {why}")
        held = self._held(names)
        if None in held:
            try:
                with contextlib.nullcontext() if sys.stderr.isatty() else disable_progress_bars():
                    huggingface_hub.snapshot_download(
                        self.reference.repo_id,
                        revision=self.reference.revision,
                        allow_patterns=list(names),
                        local_files_only=self.local,
                        endpoint=self.endpoint,
                        cache_dir=self.cache_dir,
                        library_name=LIBRARY,
                        library_version=__version__,
                    )
            except LocalEntryNotFoundError as error:
                if self.local:
                    raise not_cached(self.reference, "not, or not wholly, in the cache") from error
                raise
            held = self._held(names)
        paths = []
        for name, path in zip(names, held, strict=True):
            if path is None and self.local:
                raise not_cached(self.reference, f"{name} is not in the cache")
            if path is None:
                raise UserError(f"{self.reference}: the repository lacks {name}, {why}")
            paths.append(path)
        self.files += paths
        return paths

    def _held(self, names: Sequence[str]) -> list[Path | None]:
        """Where files lie in the cache, None for those that do not."""
        found = (
            huggingface_hub.try_to_load_from_cache(
                self.reference.repo_id, name, cache_dir=self.cache_dir, revision=self.reference.revision
            )
            for name in names
        )
        return [Path(path) if isinstance(path, str) else None for path in found]

    def _listed(self) -> dict[str, huggingface_hub.hf_api.RepoFile] | None:
        """The files of the commit as the Hub listed them, None before anything was fetched."""
        try:
            tree = huggingface_hub.get_cached_repo_tree(
                self.reference.repo_id, revision=self.reference.revision, cache_dir=self.cache_dir
            )
        except CachedRepoTreeNotFoundError:
            return None
        for file in tree:
            if file.path.startswith("/") or "\\" in file.path or ".." in file.path.split("/"):
                raise UserError(
                    f"{self.reference}: lists a file outside of itself, {file.path!r}; the repository is not to be trusted"
                )
        return {file.path: file for file in tree}

    def _intact(self, path: Path) -> bool | None:
        """Whether a file's content is that of the commit; None when the cache does not say.

        The client names contents by what the Hub calls them: their SHA-256 where the file is stored as a large one, else git's
        object id.
        """
        name = path.resolve().name
        listed = (self._listed() or {}).get(path.name)
        if listed is not None and path.stat().st_size != listed.size:
            return False
        if re.fullmatch(r"[0-9a-f]{64}", name):
            return file_sha256(path) == name
        if listed is not None and name == listed.blob_id:
            return _git_object_id(path.read_bytes()) == name
        return None

    def _damaged(self, path: Path) -> UserError:
        return UserError(
            f"{path.resolve()}: the cached copy of {path.name} is damaged; delete that file and "
            f"`rdc-bench models pull {self.reference}`"
        )


def _git_object_id(content: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
