"""Whether a model can be run on this machine, and if not, what would mend it."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from rdc_bench.core.card_files import packaged
from rdc_bench.core.errors import UserError
from rdc_bench.zoo.cards import LoadedCard, every_card
from rdc_bench.zoo.parts import weights_path
from rdc_bench.zoo.schema import (
    ClassifierSpec,
    DenoiserSpec,
    ForeignWeights,
    LibrarySpec,
    PackageWeights,
    RegisteredSpec,
    ReportedSpec,
    RobustBenchSpec,
)

#: From the most to the least available. A model is as available as its least available part.
STATES = ("registered", "bundled", "local", "cached", "downloadable", "needs weights", "reported only")
RUNNABLE = STATES[:4]


class Availability(NamedTuple):
    """Where a model's weights are. ``why``: what is missing and how to get it; empty when nothing is.

    ``bundled`` with this package or one that it needs; ``local``, beside a card of the user's; ``cached`` from the Hub or from
    RobustBench; ``downloadable`` when the model is used; ``needs weights`` that must be brought here first; ``reported only``,
    known by figures from elsewhere; ``registered`` by a plugin.
    """

    state: str
    why: str = ""

    @property
    def runnable(self) -> bool:
        """Whether the model can be run now, without a network."""
        return self.state in RUNNABLE


def availability(loaded: LoadedCard) -> Availability:
    """How available a model is, with all its parts. Raises ``UserError`` when a package with weights is not installed."""
    of_parts = [_own(card) for card in every_card(loaded)]
    state = max((part.state for part in of_parts), key=STATES.index)
    return Availability(state, "; ".join(dict.fromkeys(part.why for part in of_parts if part.why)))


def require(loaded: LoadedCard) -> LoadedCard:
    """The same card. Raises ``UserError`` when weights must be brought here first, or the model is known by figures alone."""
    found = availability(loaded)
    if found.state in ("needs weights", "reported only"):
        raise UserError(f"model {loaded.card.name!r} cannot be run here: {found.why}")
    return loaded


def _own(loaded: LoadedCard) -> Availability:
    """How available a card is by itself, its parts set aside."""
    spec = loaded.card.model
    home = "bundled" if loaded.path.parent == packaged("models") else "cached" if loaded.hub else "local"
    if isinstance(spec, ReportedSpec):
        return Availability("reported only", spec.missing)
    if isinstance(spec, RegisteredSpec):
        return Availability("registered")
    if isinstance(spec, RobustBenchSpec):
        return _from_robustbench(spec)
    if isinstance(spec, LibrarySpec) and importlib.util.find_spec(spec.kind) is None:
        return Availability("downloadable", f"needs the package {spec.kind}: pip install 'rdc-bench[timm]'")
    if not isinstance(spec, ClassifierSpec | DenoiserSpec | LibrarySpec):
        return Availability(home)
    if isinstance(spec.weights, ForeignWeights):
        why = f"the weights of {loaded.card.name!r} are not here: {spec.weights.how} (from {spec.weights.origin})"
        return Availability("needs weights", why)
    path = weights_path(loaded, spec.weights)
    if not path.is_file() and loaded.hub:
        return Availability("downloadable", f"{path.name} is downloaded from {loaded.hub} when the model is used")
    if not path.is_file():
        return Availability("needs weights", f"{path}: the weights are missing")
    return Availability("bundled" if isinstance(spec.weights, PackageWeights) else home)


def _from_robustbench(spec: RobustBenchSpec) -> Availability:
    if importlib.util.find_spec("robustbench") is None:
        return Availability("downloadable", "needs the package robustbench: pip install 'rdc-bench[robustbench]'")
    path = spec.download
    # An ensemble's members lie beside it, under longer names.
    if path.is_file() or any(path.parent.glob(f"{path.name}_m*.pt")):
        return Availability("cached")
    return Availability("downloadable", f"RobustBench downloads {path} when the model is used")
