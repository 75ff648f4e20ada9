"""Threat models: what an attacker may do to an image.

A threat knows its distance, its projection and its membership test; it knows no attack. Its ``kind`` is what attacks declare
that they can work under. The classes are imported when they are first used: which threats there are is said without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rdc_bench.cards import card_names, find_threat_card
from rdc_bench.eps import Eps, parse_eps
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.lazy import from_modules
from rdc_bench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from rdc_bench.threats.corruptions import CorruptionsThreat
    from rdc_bench.threats.elastic import ElasticThreat
    from rdc_bench.threats.fog import FogThreat
    from rdc_bench.threats.gabor import GaborThreat
    from rdc_bench.threats.jpeg import JpegThreat
    from rdc_bench.threats.low_frequency import LowFrequencyThreat
    from rdc_bench.threats.lp import LpThreat
    from rdc_bench.threats.patch import PatchThreat
    from rdc_bench.threats.recolor import ReColorThreat
    from rdc_bench.threats.rotation_translation import RotationTranslationThreat
    from rdc_bench.threats.snow import SnowThreat
    from rdc_bench.threats.stadv import StAdvThreat
else:  # hidden from type checkers, which would take any name
    __getattr__ = from_modules(
        __name__,
        {
            "CorruptionsThreat": "rdc_bench.threats.corruptions",
            "ElasticThreat": "rdc_bench.threats.elastic",
            "FogThreat": "rdc_bench.threats.fog",
            "GaborThreat": "rdc_bench.threats.gabor",
            "JpegThreat": "rdc_bench.threats.jpeg",
            "LowFrequencyThreat": "rdc_bench.threats.low_frequency",
            "LpThreat": "rdc_bench.threats.lp",
            "PatchThreat": "rdc_bench.threats.patch",
            "ReColorThreat": "rdc_bench.threats.recolor",
            "RotationTranslationThreat": "rdc_bench.threats.rotation_translation",
            "SnowThreat": "rdc_bench.threats.snow",
            "StAdvThreat": "rdc_bench.threats.stadv",
        },
    )

__all__ = [
    "SETS",
    "THREATS",
    "CorruptionsThreat",
    "ElasticThreat",
    "Eps",
    "FogThreat",
    "GaborThreat",
    "JpegThreat",
    "LowFrequencyThreat",
    "LpThreat",
    "PatchThreat",
    "ReColorThreat",
    "RotationTranslationThreat",
    "SnowThreat",
    "StAdvThreat",
    "Threat",
    "ThreatSet",
    "is_seen",
    "list_threats",
    "make_threat",
    "members",
    "parse_eps",
]


class Threat(Protocol):
    """What every threat model offers. Images are batches (B, C, H, W) in [0, 1]; results are per image, (B,)."""

    kind: str
    eps: float

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """How far each adversarial image is from its original, in the unit of ``eps``."""

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each adversarial image is one that this attacker may make, up to rounding."""

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """An allowed image near ``adversarial``."""

    def max_eps(self, shape: tuple[int, ...]) -> float:
        """The largest meaningful ``eps`` for images of this shape (C, H, W)."""


THREATS: Registry[Callable[[float], Threat]] = Registry(
    "threat",
    {
        "linf": "rdc_bench.threats.lp:linf",
        "l2": "rdc_bench.threats.lp:l2",
        "l1": "rdc_bench.threats.lp:l1",
        "corruptions": "rdc_bench.threats.corruptions:CorruptionsThreat",
        "elastic": "rdc_bench.threats.elastic:ElasticThreat",
        "fog": "rdc_bench.threats.fog:FogThreat",
        "gabor": "rdc_bench.threats.gabor:GaborThreat",
        "jpeg-linf": "rdc_bench.threats.jpeg:jpeg_linf",
        "jpeg-l2": "rdc_bench.threats.jpeg:jpeg_l2",
        "low-frequency": "rdc_bench.threats.low_frequency:LowFrequencyThreat",
        "patch": "rdc_bench.threats.patch:PatchThreat",
        "perceptual": "rdc_bench.threats.perceptual:PerceptualThreat",
        "recolor": "rdc_bench.threats.recolor:ReColorThreat",
        "rotation-translation": "rdc_bench.threats.rotation_translation:RotationTranslationThreat",
        "snow": "rdc_bench.threats.snow:SnowThreat",
        "stadv": "rdc_bench.threats.stadv:StAdvThreat",
    },
)


def list_threats() -> list[str]:
    """Names of all threat models: cards, and threats that plugins registered without one."""
    return sorted({*card_names("threat_models"), *THREATS.names()})


class ThreatSet(NamedTuple):
    """A name for many threat models. ``seen``: whether those belong to it that models are commonly trained against."""

    title: str
    seen: bool


#: Every threat model belongs to these sets by what its card says, those of the working directory and of plugins too.
SETS = {
    "unseen": ThreatSet("every threat that models are not commonly trained against", seen=False),
    "all": ThreatSet("every threat", seen=True),
}


def is_seen(name: str) -> bool:
    """Whether models are commonly trained against the threat called ``name``; not those without a card."""
    return name in card_names("threat_models") and find_threat_card(name).seen


def members(name: str) -> list[str]:
    """The threat models of a set, those that models are trained against first."""
    seen = [threat for threat in list_threats() if is_seen(threat)]
    unseen = [threat for threat in list_threats() if threat not in seen]
    return [*seen, *unseen] if SETS[name].seen else unseen


def make_threat(name: str, eps: str | float | Eps | None, shape: tuple[int, ...]) -> tuple[Threat, Eps]:
    """The threat model called ``name`` at size ``eps`` (the card's default when None), for images of shape (C, H, W).

    Raises: ``UserError`` for an unknown name, an ``eps`` that is no positive number, or one beyond all sense.
    """
    if name in SETS:
        raise UserError(f"threat {name!r} is a set of threats; here one is needed: {', '.join(members(name))}")
    if name in card_names("threat_models"):
        card = find_threat_card(name)
        kind, size = card.kind, parse_eps(card.default_eps if eps is None else eps)
    else:
        if name not in THREATS.names():
            raise unknown_name("threat", name, [*list_threats(), *SETS], "`rdc-bench list threats` shows them all.")
        kind = name
        if eps is None:
            raise UserError(f"threat {name!r} has no card and so no default size; pass --eps")
        size = parse_eps(eps)
    threat = THREATS.get(kind)(float(size))
    largest = threat.max_eps(shape)
    if float(size) > largest:
        hint = f"; did you mean {size.text}/255?" if float(size) / 255 <= largest and "/" not in size.text else ""
        raise UserError(f"eps {size.text} is larger than {largest:g}, the most that threat {name!r} can mean here{hint}")
    return threat, size
