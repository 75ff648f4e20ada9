"""Threat models: what an attacker may do to an image.

A threat knows its distance, its projection and its membership test; it knows no attack. Its ``kind`` is what attacks declare
that they can work under.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from rdc_bench.threats.eps import Eps, parse_eps
from rdc_bench.threats.lp import LpThreat
from rdc_bench.threats.stadv import StAdvThreat

__all__ = ["Eps", "LpThreat", "StAdvThreat", "Threat", "parse_eps"]


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
