"""Where a model's card and the cards that it names come from.

A bare name or a path leads to a local card (:mod:`rdc_bench.zoo.cards`), ``hf://owner/repo[@revision]`` to a repository on the
Hugging Face Hub, ``robustbench:ID`` to RobustBench's zoo. The parts of a local card are looked up in the same ways; those of a
card from the Hub lie in the same commit of the same repository, and nowhere else.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import cast

from rdc_bench.core.errors import UserError
from rdc_bench.core.files import file_sha256
from rdc_bench.zoo.cards import LoadedCard, every_card, find_model_card, with_parts
from rdc_bench.zoo.reference import is_reference, parse_reference
from rdc_bench.zoo.schema import (
    ROBUSTBENCH,
    ClassifierSpec,
    DenoiserSpec,
    ForeignWeights,
    PackageWeights,
    RobustBenchSpec,
    Weights,
)

#: What finds cards elsewhere. Both stand on this folder and take a while to import: they are named here, and imported when a
#: model's name asks for them.
HUB, ROBUSTBENCH_ZOO = "rdc_bench.hub.pull", "rdc_bench.robustbench.theirs"


def find_card(name: str, *, download: bool = True, weights: bool = True) -> LoadedCard:
    """The model card that ``name`` leads to, with all its parts.

    Args:
        name: a bare name, a path to a ``.yaml`` file, ``hf://owner/repo[@revision]``, ``robustbench:ID`` or
            ``robustbench:DATASET/THREAT/ID``.
        download: fetch what lies on the Hub; otherwise take it from the client's cache alone.
        weights: fetch the weights too, and not only the cards.
    Raises: ``UserError`` when a card is not to be found, is faulty, or cannot be fetched.
    """

    def find(name: str, above: tuple[Path, ...]) -> LoadedCard:
        if is_reference(name):
            pulled = importlib.import_module(HUB).pull(parse_reference(name), weights=weights, local_only=not download)
            return cast(LoadedCard, pulled.card)
        if name.startswith(ROBUSTBENCH):
            return cast(LoadedCard, robustbench_zoo().resolve(name))
        return with_parts(find_model_card(name), find, above)

    return find(name, ())


def robustbench_zoo() -> ModuleType:
    """:mod:`rdc_bench.robustbench.theirs`. Raises ``UserError`` where the extra is not installed."""
    try:
        return importlib.import_module(ROBUSTBENCH_ZOO)
    except ImportError as error:
        raise UserError(str(error)) from error


def own_weights(loaded: LoadedCard) -> Weights | PackageWeights | None:
    """The weights of the card itself, None where it only puts parts together or they are not here."""
    spec = loaded.card.model
    if not isinstance(spec, ClassifierSpec | DenoiserSpec) or isinstance(spec.weights, ForeignWeights):
        return None
    return spec.weights


def weights_path(loaded: LoadedCard, weights: Weights | PackageWeights) -> Path:
    """Where weights of a card lie: beside it, or in an installed package."""
    if isinstance(weights, Weights):
        return loaded.path.parent / weights.file
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise UserError(f"{loaded.path}: its weights come with the package {weights.package}, which is not installed")
    return Path(spec.origin).parent / weights.file


def check_weights(path: Path, sha256: str) -> None:
    """Raise ``UserError`` unless a weights file is there and is the one that its card names."""
    if not path.is_file():
        raise UserError(f"{path}: the weights are missing")
    if file_sha256(path) != sha256:
        raise UserError(
            f"{path}: SHA-256 differs from the card's; the file is damaged or another one ({path.stat().st_size} bytes)"
        )


def weight_files(loaded: LoadedCard) -> dict[str, str]:
    """SHA-256 of every weights file that a model uses, its parts' included.

    Keyed by file name; of what comes from the Hub, by ``hf://owner/repo@commit/file name``. RobustBench publishes no checksums:
    its files are downloaded if need be.
    """
    found: dict[str, str] = {}
    for card in every_card(loaded):
        if isinstance(card.card.model, RobustBenchSpec):
            found |= robustbench_zoo().weight_files(card.card.model)
        elif weights := own_weights(card):
            found[f"{card.hub}/{weights.file}" if card.hub else weights.file] = weights.sha256
    return found
