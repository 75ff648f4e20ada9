"""Publishing a model on the Hub: its card with every part, their weights, ``config.json`` and a README, in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd

from rdc_bench.core.errors import UserError
from rdc_bench.hub.client import client, one_line_errors
from rdc_bench.reporting.model_card import measured, readme
from rdc_bench.zoo.cards import LoadedCard, every_card
from rdc_bench.zoo.layout import CONFIG, LIBRARY, README, RepositoryConfig, weights_beside
from rdc_bench.zoo.parts import check_weights, find_card
from rdc_bench.zoo.reference import HubReference, is_reference


@dataclass(frozen=True)
class Pushed:
    """What was published: the reference that leads to exactly this commit, the commit's page, and the files."""

    reference: HubReference
    url: str
    files: list[str]


def push(
    name: str,
    reference: HubReference,
    *,
    results: Path | None = None,
    private: bool = False,
    message: str | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Upload a model with everything that it needs; the repository is made where there is none.

    Args:
        name: a card's name or path. results: a run, or a folder of runs, whose figures the README states.
        private: of a new repository. endpoint: None leaves it to the client (``HF_ENDPOINT``).
    Raises: ``UserError`` when a part is missing or damaged, before anything is sent; or when the Hub refuses.
    """
    if reference.revision:
        raise UserError(f"{reference}: a push makes a new commit on the main branch; leave out '@{reference.revision}'")
    loaded = find_card(name)
    contents = repository_files(loaded)
    contents[README] = readme(loaded, reference, measured(loaded, results) if results else []).encode()
    api = client(endpoint)
    with one_line_errors(reference, endpoint):
        api.create_repo(reference.repo_id, private=private or None, exist_ok=True)
        commit = api.create_commit(
            reference.repo_id,
            [CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in contents.items()],
            commit_message=message or f"Publish {loaded.card.name} with {LIBRARY}",
        )
    return Pushed(reference.at(commit.oid), commit.commit_url, sorted(contents))


def repository_files(loaded: LoadedCard) -> dict[str, bytes | Path]:
    """The files of a model's repository but for the README: contents of cards, paths of weights.

    Raises: ``UserError`` for weights that are missing or not those of the card, and for two files of one name.
    """
    files: dict[str, bytes | Path] = {}
    for card in every_card(loaded):
        here: dict[str, bytes | Path] = {f"{card.card.name}.yaml": _card_text(card)}
        if weights := weights_beside(card):
            path = card.path.parent / weights.file
            check_weights(path, weights.sha256)
            here[weights.file] = path
        if twice := [file for file, content in here.items() if files.get(file, content) != content]:
            raise UserError(f"{loaded.card.name!r} has two different parts with a file {twice[0]!r}; rename one of them")
        files |= here
    files[CONFIG] = RepositoryConfig(library_name=LIBRARY, schema_version=1, card=f"{loaded.card.name}.yaml").content()
    return files


def _card_text(loaded: LoadedCard) -> bytes:
    """The card's file; parts that it takes from elsewhere on the Hub are named as they will lie beside it."""
    text = loaded.path.read_bytes()
    moved = {name: part.card.name for name, part in loaded.parts.items() if is_reference(name)}
    if not moved:
        return text
    return yaml.safe_dump(_renamed(yaml.safe_load(text), moved), sort_keys=False, allow_unicode=True).encode()


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The same document with some of its strings replaced."""
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    return names.get(value, value) if isinstance(value, str) else value
