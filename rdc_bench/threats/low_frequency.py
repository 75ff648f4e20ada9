"""Low-frequency changes (Guo, Frank & Weinberger 2019, arXiv 1809.08758): bounded ones made of the lowest frequencies alone.

Each channel of the change is a sum of the lowest quarter of the frequencies of the discrete cosine transform along each axis,
and no pixel changes by more than ε before the image is clipped to its range.

This is not the attack of the same name in DiffBreak, which optimises low-pass filters of the image under a perceptual bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import LinearConstraint, milp
from torch import Tensor

from rdc_bench.core.errors import UserError

#: Share of the frequencies along each axis that a change is made of.
SHARE = 1 / 4
#: Sides of the images that the threat is for: with fewer pixels a quarter of them is no pattern, with more the linear programme
#: behind the membership test takes too long.
SIDES = (4, 64)

#: Slack of the membership test in pixel values; the transform in float32 errs by less.
ROUNDING = 2e-6
#: Least singular value of the patterns on the known pixels from which on these pixels determine the change: it grows rounding
#: errors of the pixels, of 6e-8, by no more than 10 then.
DETERMINED = 0.1
#: Rounds of alternating projections.
ROUNDS = 20


def kept(size: int) -> int:
    """How many of the frequencies along an axis of ``size`` pixels are low."""
    return math.ceil(SHARE * size)


@functools.cache
def waves(size: int, count: int) -> Tensor:
    """The first ``count`` vectors of the orthonormal cosine basis of ``size`` points, (count, size) in float64."""
    frequency, place = torch.arange(count, dtype=torch.float64)[:, None], torch.arange(size, dtype=torch.float64)
    basis = torch.cos((2 * place + 1) * frequency * math.pi / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


def enlarge(small: Tensor, size: Sequence[int]) -> Tensor:
    """The change (B, C, *size) whose lowest frequencies are those of ``small`` (B, C, H', W'), and which has no others."""
    rows, columns = (_interpolation(n, m).to(small) for n, m in zip(size, small.shape[2:], strict=True))
    return rows @ small @ columns.T


def low_pass(change: Tensor) -> Tensor:
    """The nearest change that has low frequencies alone."""
    rows, columns = (waves(n, kept(n)).to(change) for n in change.shape[2:])
    return rows.T @ (rows @ change @ columns.T) @ columns


def within(change: Tensor, eps: float) -> Tensor:
    """The nearest change (B, C, H, W) of low frequencies alone and at most ``eps`` at any pixel, nearly.

    Dykstra's alternating projections between the two convex sets, for some rounds; what still exceeds ``eps`` is scaled down.
    """
    low, excess = low_pass(change), torch.zeros_like(change)
    for _ in range(ROUNDS):
        clamped = (low + excess).clamp(-eps, eps)
        excess = low + excess - clamped
        low = low_pass(clamped)
    return low * (eps / low.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(eps))


class LowFrequencyThreat:
    """``{clip(x + δ, 0, 1) : δ of low frequencies alone, ‖δ‖_∞ ≤ ε}``.

    Membership and distance are decided from the images alone, and exactly. Where a pixel lies strictly inside the range, its
    change is known; where it is 0 or 1 it may have been clipped, so that a bound on its change is known. The smallest δ that
    agrees with all this is a linear programme for each channel; where enough pixels are known, they determine it.
    """

    kind = "low-frequency"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """From black to white. Raises ``UserError`` for images of which a side is not within ``SIDES``."""
        least, most = SIDES
        if min(shape[1:]) < least or max(shape[1:]) > most:
            sides = f"{least} × {least} to {most} × {most} pixels"
            raise UserError(f"threat {self.kind} is for images of {sides}, not {shape[1]} × {shape[2]}")
        return 1.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image can be reached by a low-frequency change within ε; bool (B,)."""
        return (self.distance(x, adversarial) <= self.eps + ROUNDING).to(x.device)

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The least ``‖δ‖_∞`` that gives each image, (B,) in float64; infinite for images that no such change gives."""
        in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1).cpu()  # false for NaN as well
        x, adversarial = x.detach().double().cpu(), adversarial.detach().double().cpu()
        change = adversarial - x
        sizes = change.abs().flatten(1).amax(dim=1)
        smooth = ((change - low_pass(change)).abs() <= ROUNDING).flatten(1).all(dim=1)
        clipped = ((adversarial <= 0) | (adversarial >= 1)).flatten(1).any(dim=1)
        norms = [
            float(size) if as_it_is else self._least_maximum(difference, image) if valid and may_differ else math.inf
            for size, as_it_is, difference, image, valid, may_differ in zip(
                sizes, smooth & in_range, change, adversarial, in_range, clipped, strict=True
            )
        ]
        return torch.tensor(norms, dtype=torch.float64)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The image whose change is the allowed one nearest to ``adversarial − x``, see :func:`within`, clipped."""
        return (x + within(adversarial - x, self.eps)).clamp(0, 1)

    def _least_maximum(self, change: Tensor, adversarial: Tensor) -> float:
        """Of one image (C, H, W), of which pixels may have been clipped."""
        rows, columns = (waves(n, kept(n)).numpy() for n in change.shape[1:])
        patterns = np.einsum("ui,vj->ijuv", rows, columns).reshape(change[0].numel(), -1)
        return max(
            _least_maximum(patterns, difference.flatten().numpy(), channel.flatten().numpy())
            for difference, channel in zip(change, adversarial, strict=True)
        )


def _least_maximum(patterns: np.ndarray, change: np.ndarray, adversarial: np.ndarray) -> float:
    """``min ‖patterns · q‖_∞`` where clipping ``patterns · q`` explains ``change`` up to ``ROUNDING``; all pixels in a row."""
    dark, bright = adversarial <= 0, adversarial >= 1
    least, most = np.where(dark, -np.inf, change - ROUNDING), np.where(bright, np.inf, change + ROUNDING)
    known = ~(dark | bright)
    if known.sum() >= patterns.shape[1]:
        coefficients, _, _, singular = np.linalg.lstsq(patterns[known], change[known], rcond=None)
        if singular[-1] >= DETERMINED:
            found = patterns @ coefficients
            explains = ((found >= least - ROUNDING) & (found <= most + ROUNDING)).all()
            return float(np.abs(found).max()) if explains else math.inf
    # Unknowns: the coefficients q, and the maximum t. What is known of a pixel bounds t from below already.
    zeros, ones = np.zeros((len(change), 1)), np.ones((len(change), 1))
    solution = milp(
        np.r_[np.zeros(patterns.shape[1]), 1.0],
        bounds=(np.r_[np.full(patterns.shape[1], -np.inf), np.abs(change).max()], np.inf),
        constraints=[
            LinearConstraint(np.hstack([patterns, zeros]), least, most),
            LinearConstraint(np.hstack([patterns, ones])[dark], 0, np.inf),
            LinearConstraint(np.hstack([patterns, -ones])[bright], -np.inf, 0),
        ],
    )
    return float(solution.x[-1]) if solution.success else math.inf


def _interpolation(size: int, count: int) -> Tensor:
    """The matrix (size, count) that reads ``count`` points as a sum of cosines at ``size`` points; it keeps constants."""
    return math.sqrt(size / count) * waves(size, count).T @ waves(count, count)
