"""Bringing a model from the Hub into the client's cache, whole and verified.

Only files that follow from the repository's cards are fetched: ``config.json``, the README, the cards, and the safetensors
files that the cards name. Everything is taken from one commit. The client checks no file's content, and offline it takes a part
of a snapshot for the whole; so both are checked here, at every pull.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple, TypeVar

import huggingface_hub
from huggingface_hub.errors import RevisionResolutionError

from rdc_bench.core.errors import UserError
from rdc_bench.hub.client import client, one_line_errors
from rdc_bench.hub.snapshot import NotCachedError, Snapshot, not_cached
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.reference import HubReference

T = TypeVar("T")


@dataclass(frozen=True)
class Pulled:
    """A model from the Hub: repository and commit, its folder in the client's cache, its card with all parts, and its files."""

    reference: HubReference
    folder: Path
    card: LoadedCard
    files: list[Path]


class PulledCheckpoint(NamedTuple):
    """Weights of a repository that is not ours: repository and commit, its ``config.json``, and the weights file."""

    reference: HubReference
    config: Path
    weights: Path


def pull(
    reference: HubReference,
    *,
    weights: bool = True,
    local_only: bool = False,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> Pulled:
    """Fetch what is not in the cache yet, and verify all of it.

    Args:
        weights: the weights too, not only the cards. local_only: take everything from the cache, as ``HF_HUB_OFFLINE`` does.
        endpoint, cache_dir: None leaves them to the client (``HF_ENDPOINT``, ``HF_HUB_CACHE``).
    Raises: ``UserError`` when the repository, the revision or a file cannot be had, or a file is not the right one.
    """

    def read(snapshot: Snapshot) -> Pulled:
        card = snapshot.read(weights)
        return Pulled(snapshot.reference, card.path.parent, card, list(dict.fromkeys(snapshot.files)))

    return _of_one_commit(reference, read, local_only, endpoint, cache_dir)


def pull_checkpoint(
    reference: HubReference, *, local_only: bool = False, endpoint: str | None = None, cache_dir: Path | None = None
) -> PulledCheckpoint:
    """Fetch the weights of a repository that holds no cards, as timm and others publish them, and its ``config.json``.

    Args, raises: as for :func:`pull`.
    """

    def read(snapshot: Snapshot) -> PulledCheckpoint:
        return PulledCheckpoint(snapshot.reference, *snapshot.read_checkpoint())

    return _of_one_commit(reference, read, local_only, endpoint, cache_dir)


def _of_one_commit(
    reference: HubReference,
    read: Callable[[Snapshot], T],
    local_only: bool,
    endpoint: str | None,
    cache_dir: Path | None,
) -> T:
    """What ``read`` makes of the commit that ``reference`` means."""

    def at(commit: str, *, local: bool) -> T:
        return read(Snapshot(reference.at(commit), endpoint, cache_dir, local))

    with one_line_errors(reference, endpoint):
        if local_only or huggingface_hub.is_offline_mode():
            return at(_cached_commit(reference, endpoint, cache_dir), local=True)
        if reference.revision and reference.pinned:  # a commit never changes: when it is here, there is nothing to ask
            with contextlib.suppress(NotCachedError):
                return at(reference.revision, local=True)
        return at(_current_commit(reference, endpoint, cache_dir), local=False)


def _current_commit(reference: HubReference, endpoint: str | None, cache_dir: Path | None) -> str:
    """The commit that the Hub says, now."""
    api = client(endpoint)
    # Asked once more than needed: resolve_revision alone would answer from the cache, silently, when the Hub is out of reach.
    try:
        api.model_info(reference.repo_id, revision=reference.revision)
    except (JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{reference}: {api.endpoint} does not answer as a Hugging Face Hub does; see to HF_ENDPOINT"
        ) from error
    return api.resolve_revision(reference.repo_id, revision=reference.revision, cache_dir=cache_dir).resolved


def _cached_commit(reference: HubReference, endpoint: str | None, cache_dir: Path | None) -> str:
    """The commit that the revision meant when it was last pulled."""
    try:
        return (
            client(endpoint)
            .resolve_revision(reference.repo_id, revision=reference.revision, cache_dir=cache_dir, local_files_only=True)
            .resolved
        )
    except RevisionResolutionError as error:
        raise not_cached(reference, "not in the cache") from error
