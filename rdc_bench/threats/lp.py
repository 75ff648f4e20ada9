"""The ℓ∞ and ℓ2 balls, intersected with the image range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]

#: Rounding that a float32 pixel in [0, 1] may carry: its spacing near 1 is 6e-8.
ROUNDING = 1e-7


class LpThreat:
    """``{x' ∈ [0,1]^d : ‖x' − x‖_p ≤ ε}`` for p = ∞ or 2. All methods take batches (B, C, H, W) in [0, 1].

    Args:
        norm: ``"linf"`` or ``"l2"``. eps: radius, in units of the [0, 1] range.
    """

    def __init__(self, norm: Norm, eps: float) -> None:
        self.norm: Norm = norm
        self.kind = norm
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """The diameter of [0, 1]^d: beyond it the ball holds every image."""
        return 1.0 if self.norm == "linf" else math.prod(shape) ** 0.5

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """``‖x' − x‖_p`` per image, (B,), accumulated in float64."""
        difference = (adversarial.double() - x.double()).flatten(1)
        return difference.abs().amax(dim=1) if self.norm == "linf" else difference.norm(dim=1)

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is finite, in [0, 1] and within ε of ``x`` up to rounding; bool (B,)."""
        flat = adversarial.flatten(1)
        in_range = (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)  # false for NaN as well
        return in_range & (self.distance(x, adversarial) <= self.eps + ROUNDING * self.max_eps(x.shape[1:]))

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The nearest image in the ℓ∞ set; for ℓ2, the radial projection followed by clipping, which stays inside."""
        delta = adversarial - x
        within = (
            delta.clamp(-self.eps, self.eps) if self.norm == "linf" else delta * (self.eps / _l2(delta).clamp_min(self.eps))
        )
        return (x + within).clamp(0, 1)

    def random_start(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A random image of the set: uniform in the ℓ∞ ball, uniform in the ℓ2 ball, clipped to [0, 1].

        Args: generators: one per image, or a single one for the whole batch.
        """
        if len(generators) == 1:
            noise = self._noise(x.shape, generators[0])
        else:
            noise = torch.cat([self._noise(x[:1].shape, g) for g in generators])
        return (x + self.eps * noise.to(x)).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of unit norm that increases a linear function most: the sign (ℓ∞) or ``g/‖g‖`` (ℓ2)."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _l2(gradient).clamp_min(1e-12)

    def _noise(self, shape: Sequence[int], g: torch.Generator) -> Tensor:
        if self.norm == "linf":
            return 2 * torch.rand(shape, generator=g) - 1
        direction = self.steepest(torch.randn(shape, generator=g))
        radius = torch.rand(shape[0], generator=g) ** (1 / direction[0].numel())
        return radius[:, None, None, None] * direction


def linf(eps: float) -> LpThreat:
    """The ℓ∞ ball of radius ``eps``."""
    return LpThreat("linf", eps)


def l2(eps: float) -> LpThreat:
    """The ℓ2 ball of radius ``eps``."""
    return LpThreat("l2", eps)


def _l2(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]
