"""Where a model's card and the cards that it names come from.

A bare name or a path leads to a local card (:mod:`rdc_bench.zoo.cards`), ``hf://owner/repo[@revision]`` to a repository on the
Hugging Face Hub, ``robustbench:ID`` to RobustBench's zoo, ``timm:NAME`` and ``torchvision:NAME`` to a network of that library
(:mod:`rdc_bench.zoo.library_name`). The parts of a local card are looked up in the same ways; those of a card from the Hub lie
in the same commit of the same repository, and nowhere else.
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
from rdc_bench.zoo.library_name import is_library_name
from rdc_bench.zoo.reference import is_reference, parse_reference
from rdc_bench.zoo.schema import (
    ROBUSTBENCH,
    CheckpointWeights,
    ClassifierSpec,
    DenoiserSpec,
    ForeignWeights,
    LibrarySpec,
    PackageWeights,
    RobustBenchSpec,
    Weights,
)

#: What finds cards elsewhere. They stand on this folder and take a while to import: they are named here, and imported when a
#: model's name asks for them.
HUB, ROBUSTBENCH_ZOO, LIBRARIES = "rdc_bench.hub.pull", "rdc_bench.robustbench.theirs", "rdc_bench.libraries"

#: Weights that are a file here.
OwnWeights = Weights | PackageWeights | CheckpointWeights


def find_card(name: str, *, download: bool = True, weights: bool = True) -> LoadedCard:
    """The model card that ``name`` leads to, with all its parts.

    Args:
        name: a bare name, a path to a ``.yaml`` file, ``hf://owner/repo[@revision]``, ``robustbench:ID``,
            ``robustbench:DATASET/THREAT/ID``, ``timm:NAME?…`` or ``torchvision:NAME?…``.
        download: fetch what lies on the Hub; otherwise take it from the client's cache alone.
        weights: fetch the weights too, and not only the cards. Of a library's network the weights are fetched anyway.
    Raises: ``UserError`` when a card is not to be found, is faulty, or cannot be fetched.
    """

    def find(name: str, above: tuple[Path, ...]) -> LoadedCard:
        if is_reference(name):
            pulled = importlib.import_module(HUB).pull(parse_reference(name), weights=weights, local_only=not download)
            return cast(LoadedCard, pulled.card)
        if name.startswith(ROBUSTBENCH):
            return cast(LoadedCard, robustbench_zoo().resolve(name))
        if is_library_name(name):
            return cast(LoadedCard, libraries().resolve(name, download=download))
        return with_parts(find_model_card(name), find, above)

    return find(name, ())


def robustbench_zoo() -> ModuleType:
    """:mod:`rdc_bench.robustbench.theirs`. Raises ``UserError`` where the extra is not installed."""
    try:
        return importlib.import_module(ROBUSTBENCH_ZOO)
    except ImportError as error:
        raise UserError(str(error)) from error


def libraries() -> ModuleType:
    """:mod:`rdc_bench.libraries`, which makes networks of timm and torchvision."""
    return importlib.import_module(LIBRARIES)


def own_weights(loaded: LoadedCard) -> OwnWeights | None:
    """The weights of the card itself, None where it only puts parts together or they are not here."""
    spec = loaded.card.model
    if not isinstance(spec, ClassifierSpec | DenoiserSpec | LibrarySpec) or isinstance(spec.weights, ForeignWeights):
        return None
    return spec.weights


def weights_path(loaded: LoadedCard, weights: OwnWeights) -> Path:
    """Where weights of a card lie: beside it, or in an installed package."""
    if not isinstance(weights, PackageWeights):
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
