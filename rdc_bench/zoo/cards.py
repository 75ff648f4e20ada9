"""How a name leads to a model's card, and a card to those that it names.

Every source but a card here is explicit (``hf://``, ``robustbench:``, ``timm:``, ``torchvision:``, see
:mod:`rdc_bench.zoo.parts`), and there is no fall from one to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rdc_bench.core.card_files import find_card_file, read_card
from rdc_bench.core.errors import UserError
from rdc_bench.core.files import file_sha256
from rdc_bench.zoo.schema import ModelCard, part_names

#: How deep cards may name one another.
DEEPEST = 8


class LoadedCard(BaseModel):
    """A card, the file that it was read from, and the SHA-256 of that file.

    ``parts``: the cards that it names, by the names that it gives them. ``hub``: the repository and commit
    (``hf://owner/repo@commit``) that it or its weights came from, None for a local card. ``reference``: the name that leads to
    it again, where the name that led here may lead elsewhere later.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    card: ModelCard
    path: Path
    sha256: str
    parts: Mapping[str, LoadedCard] = {}
    hub: str | None = None
    reference: str | None = None


def find_model_card(name: str) -> LoadedCard:
    """The model card that ``name`` (a bare name or a path to a ``.yaml`` file) leads to, without its parts."""
    return read_model_card(find_card_file(name, "models", "model"))


def read_model_card(path: Path) -> LoadedCard:
    """The model card in a file, without its parts."""
    return LoadedCard(card=read_card(path, ModelCard), path=path, sha256=file_sha256(path))


def every_card(loaded: LoadedCard) -> Iterator[LoadedCard]:
    """The card and all its parts, each once, in the order in which they are named."""
    seen: set[Path] = set()

    def walk(card: LoadedCard) -> Iterator[LoadedCard]:
        if card.path not in seen:
            seen.add(card.path)
            yield card
            for part in card.parts.values():
                yield from walk(part)

    return walk(loaded)


def with_parts(loaded: LoadedCard, find: Callable[[str, tuple[Path, ...]], LoadedCard], above: tuple[Path, ...]) -> LoadedCard:
    """The card together with the cards that it names.

    Args: find: makes a name into a complete card, given the files of the cards that lead to it. above: those that led here.
    Raises: ``UserError`` for a card that is a part of itself, or that lies too deep.
    """
    if loaded.path in above:
        raise UserError(f"{loaded.path}: the card is a part of itself")
    if len(above) >= DEEPEST:
        raise UserError(f"{loaded.path}: more than {DEEPEST} cards that name one another")
    below = (*above, loaded.path)
    return loaded.model_copy(update={"parts": {name: find(name, below) for name in part_names(loaded.card.model)}})
