"""The ℓ∞, ℓ2 and ℓ1 balls, intersected with the image range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2", "l1"]

#: Rounding that a float32 pixel in [0, 1] may carry: its spacing near 1 is 6e-8.
ROUNDING = 1e-7

#: Share of the coordinates that a step under ℓ1 moves. The steepest direction has one, and takes as many steps as there are
#: coordinates to change; Tramèr & Boneh 2019 (arXiv 1904.13000) move 1 to 10 %.
L1_STEP_SHARE = 0.05


class LpThreat:
    """``{x' ∈ [0,1]^d : ‖x' − x‖_p ≤ ε}`` for p = ∞, 2 or 1. All methods take batches (B, C, H, W) in [0, 1].

    Args:
        norm: ``"linf"``, ``"l2"`` or ``"l1"``. eps: radius, in units of the [0, 1] range.
    """

    def __init__(self, norm: Norm, eps: float) -> None:
        self.norm: Norm = norm
        self.kind = norm
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """The diameter of [0, 1]^d: beyond it the ball holds every image."""
        return math.prod(shape) ** {"linf": 0, "l2": 0.5, "l1": 1}[self.norm]

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """``‖x' − x‖_p`` per image, (B,), accumulated in float64."""
        difference = (adversarial.double() - x.double()).flatten(1)
        return difference.norm(dim=1, p={"linf": math.inf, "l2": 2, "l1": 1}[self.norm])

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is finite, in [0, 1] and within ε of ``x`` up to rounding; bool (B,)."""
        flat = adversarial.flatten(1)
        in_range = (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)  # false for NaN as well
        return in_range & (self.distance(x, adversarial) <= self.eps + ROUNDING * self.max_eps(x.shape[1:]))

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The nearest image in the ℓ∞ or ℓ1 set; for ℓ2, the radial projection followed by clipping, which stays inside."""
        delta = adversarial - x
        within = project_l1(delta, x, self.eps) if self.norm == "l1" else self.within(delta)
        return (x + within).clamp(0, 1)

    def within(self, delta: Tensor) -> Tensor:
        """The nearest change of norm ε at most under ℓ∞ or ℓ2, whatever the image range."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        return delta * (self.eps / _l2(delta).clamp_min(self.eps))

    def random_start(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A random image of the set: uniform in the ball, clipped to [0, 1].

        Args: generators: one per image, or a single one for the whole batch.
        """
        return (x + self.eps * self.uniform(x.shape, generators).to(x)).clamp(0, 1)

    def uniform(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Points uniform in the unit ball, of shape (B, C, H, W); generators as for :meth:`random_start`."""
        if len(generators) == 1:
            return self._noise(shape, generators[0])
        return torch.cat([self._noise((1, *shape[1:]), g) for g in generators])

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """A direction of unit norm that increases a linear function most: the sign (ℓ∞) or ``g/‖g‖`` (ℓ2).

        Under ℓ1, :func:`sparse_sign` of ``L1_STEP_SHARE`` of the coordinates, which is not the steepest direction but makes
        progress on many coordinates at once (Tramèr & Boneh 2019). ``x``: the original images.
        """
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return gradient / _l2(gradient).clamp_min(1e-12)
        return sparse_sign(gradient, x, torch.full((len(x),), math.ceil(L1_STEP_SHARE * x[0].numel())))

    def _noise(self, shape: Sequence[int], g: torch.Generator) -> Tensor:
        """Uniform in the unit ball."""
        if self.norm == "linf":
            return 2 * torch.rand(shape, generator=g) - 1
        if self.norm == "l1":
            signs = 2 * torch.randint(2, shape, generator=g) - 1
            exponential = torch.empty(shape).exponential_(generator=g)
            rest = torch.empty(shape[0], 1, 1, 1).exponential_(generator=g)
            return signs * exponential / (exponential.sum(dim=(1, 2, 3), keepdim=True) + rest)
        direction = torch.randn(shape, generator=g)
        direction = direction / _l2(direction)
        radius = torch.rand(shape[0], generator=g) ** (1 / direction[0].numel())
        return radius[:, None, None, None] * direction


def linf(eps: float) -> LpThreat:
    """The ℓ∞ ball of radius ``eps``."""
    return LpThreat("linf", eps)


def l2(eps: float) -> LpThreat:
    """The ℓ2 ball of radius ``eps``."""
    return LpThreat("l2", eps)


def l1(eps: float) -> LpThreat:
    """The ℓ1 ball of radius ``eps``."""
    return LpThreat("l1", eps)


def sparse_sign(gradient: Tensor, x: Tensor, count: Tensor) -> Tensor:
    """The signs of the ``count`` (B,) largest coordinates of each gradient, (B, C, H, W), of unit ℓ1 norm together.

    Coordinates of the original images ``x`` that could only leave [0, 1] would waste the step and are left out.
    """
    leaving = ((x <= 0) & (gradient < 0)) | ((x >= 1) & (gradient > 0))
    gradient = gradient.masked_fill(leaving, 0)
    rank = gradient.abs().flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    signs = gradient.sign() * (rank < count.to(rank)[:, None]).view_as(gradient)
    return signs / signs.abs().sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)


def _l2(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def project_l1(delta: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    """The nearest ``δ`` to ``delta`` with ``‖δ‖₁ ≤ eps`` and ``x + δ`` in [0, 1] (Croce & Hein 2021, proposition 2.1).

    ``eps`` is one for all images or one for each, (B, 1).

    It is ``sign(delta) · min(max(|delta| − λ, 0), room)`` with the room that the box leaves in that direction and the least
    ``λ ≥ 0`` that meets the bound. The norm is piecewise linear and decreasing in ``λ``, so that ``λ`` is found exactly on the
    piece where the norm passes ``eps``.
    """
    size, sign = delta.double().flatten(1).abs(), delta.sign()
    room = torch.where(delta > 0, 1 - x, x).double().flatten(1)
    # Below the first kind of break a coordinate is held by the box, above the second it is zero, and between it falls with λ.
    falls, ends = (size - room).clamp_min(0), size
    breaks, order = torch.cat([falls, ends], dim=1).sort(dim=1)
    falling = torch.cat([torch.ones_like(falls), -torch.ones_like(ends)], dim=1).gather(1, order).cumsum(dim=1)
    norm_at_zero = torch.minimum(size, room).sum(dim=1, keepdim=True)
    lost = (falling[:, :-1] * breaks.diff(dim=1)).cumsum(dim=1)
    norms = torch.cat([norm_at_zero, norm_at_zero - lost], dim=1)
    piece = (norms > eps).sum(dim=1, keepdim=True).sub(1).clamp_min(0)
    excess = (norms.gather(1, piece) - eps).clamp_min(0)
    shift = breaks.gather(1, piece) + excess / falling.gather(1, piece).clamp_min(1)
    shift = torch.where(norm_at_zero > eps, shift, 0)
    shrunk = torch.minimum((size - shift).clamp_min(0), room)
    return sign * shrunk.to(x).view_as(x)
