"""Where a model's card and the cards that it names come from.

A bare name or a path leads to a local card (:mod:`rdc_bench.cards`), ``hf://owner/repo[@revision]`` to a repository on the
Hugging Face Hub. The parts of a local card are looked up in the same ways; those of a card from the Hub lie in the same commit
of the same repository, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rdc_bench.cards import ClassifierSpec, DenoiserSpec, LoadedCard, Weights, find_model_card, with_parts
from rdc_bench.hub.reference import is_reference, parse_reference


def find_card(name: str, *, download: bool = True) -> LoadedCard:
    """The model card that ``name`` leads to, with all its parts.

    Args:
        name: a bare name, a path to a ``.yaml`` file, or ``hf://owner/repo[@revision]``.
        download: fetch what lies on the Hub; otherwise take it from the client's cache alone.
    Raises: ``UserError`` when a card is not to be found, is faulty, or cannot be fetched.
    """
    return _find(name, (), download)


def _find(name: str, above: tuple[Path, ...], download: bool) -> LoadedCard:
    if is_reference(name):
        from rdc_bench.hub.pull import pull  # the Hub's client takes a while to import

        return pull(parse_reference(name), local_only=not download).card
    return with_parts(find_model_card(name), lambda part, below: _find(part, below, download), above)


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


def own_weights(loaded: LoadedCard) -> Weights | None:
    """The weights of the card itself, None where it only puts parts together."""
    spec = loaded.card.model
    return spec.weights if isinstance(spec, ClassifierSpec | DenoiserSpec) else None


def weight_files(loaded: LoadedCard) -> dict[str, str]:
    """SHA-256 of every weights file that a model uses, its parts' included.

    Keyed by file name; of what comes from the Hub, by ``hf://owner/repo@commit/file name``.
    """
    return {
        f"{card.hub}/{weights.file}" if card.hub else weights.file: weights.sha256
        for card in every_card(loaded)
        if (weights := own_weights(card))
    }


def missing_parts(loaded: LoadedCard) -> list[str]:
    """The weights files that a model lacks to be loaded here."""
    wanted = [card.path.parent / weights.file for card in every_card(loaded) if (weights := own_weights(card))]
    return [str(path) for path in wanted if not path.is_file()]
