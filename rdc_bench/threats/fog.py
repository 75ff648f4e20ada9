"""Fog (Kang et al. 2019, arXiv 1908.08016): an image blended with a cloud that the attacker shapes.

A cloud is made by the diamond-square algorithm on a torus of 2ⁿ × 2ⁿ points: every new point is the mean of its four neighbours
on the coarser grid plus an offset, whose bound halves from one grid to the next. The attacker chooses the offsets. The cloud is
then scaled to fill [0, 1], and the image is cut from its middle.

The blend is that of Hendrycks & Dietterich 2019 (arXiv 1903.12261). The authors' code leaves out its last factor, the greatest
value of the image, and so stretches the contrast of an image that has no fog in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: By how much the bound of the offsets shrinks from one grid to the next, as in the authors' code.
DECAY = 2.0

#: Slack of the membership test in pixel values; blending in float32 errs by less.
ROUNDING = 1e-6
#: Grey levels of an image, at least one of which must be left of it.
LEVELS = 255


def side_of(shape: Sequence[int]) -> int:
    """Points along a side of the cloud for images of shape (..., H, W): the least power of 2 that is larger than the image."""
    return int(2 ** max(shape[-2:]).bit_length())


def cloud(offsets: Tensor) -> Tensor:
    """The diamond-square map of ``offsets`` (B, S, S) in [−1, 1], S a power of 2, scaled to fill [0, 1]; like ``offsets``.

    The offset of a point stands where the point does. That of the first, from which all start, has no effect.
    """
    side = offsets.shape[-1]
    points, bound = torch.zeros_like(offsets[:, :1, :1]), 1.0
    while (size := 2 * points.shape[-1]) <= side:
        spacing = side // size
        offset = bound * offsets[:, ::spacing, ::spacing]
        beside, below = points.roll(-1, dims=2), points.roll(-1, dims=1)
        centres = (points + beside + below + below.roll(-1, dims=2)) / 4 + offset[:, 1::2, 1::2]
        between = (points + beside + centres + centres.roll(1, dims=1)) / 4 + offset[:, ::2, 1::2]
        under = (points + below + centres + centres.roll(1, dims=2)) / 4 + offset[:, 1::2, ::2]
        rows = torch.stack([points, between], dim=-1).flatten(2), torch.stack([under, centres], dim=-1).flatten(2)
        points, bound = torch.stack(rows, dim=2).flatten(1, 2), bound / DECAY
    least, most = points.amin(dim=(1, 2), keepdim=True), points.amax(dim=(1, 2), keepdim=True)
    return (points - least) / (most - least).clamp_min(1e-12)


def blend(x: Tensor, fog: Tensor, density: float) -> Tensor:
    """``(x + ε f) M / (M + ε)`` with M the greatest value of the image: ``(1 − t) x + t M f``, ``t = ε / (M + ε)``.

    Args: x: (B, C, H, W). fog: ``f``, (B, H', W') in [0, 1] and no smaller, cut about its middle. density: ``ε``.
    """
    h, w = x.shape[2:]
    top, left = (fog.shape[1] - h) // 2, (fog.shape[2] - w) // 2
    greatest, share = _greatest_and_share(x, density)
    return torch.lerp(x, greatest * fog[:, None, top : top + h, left : left + w], share)


class FogThreat:
    """``{blend(x, f, ε') : ε' ≤ ε, f a cloud}``.

    Scaling the cloud takes the bound of its offsets away: every map is, up to scale and shift, that of offsets that are small
    enough. As the cloud is larger than the image, what is outside can hold its least and greatest value. The set is therefore
    exactly that of all grey fogs with values in [0, 1], however rough; membership and distance are exact for it.
    """

    kind = "fog"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """Where less than one grey level is left of the image."""
        return LEVELS - 1.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is a blend with some fog of density ε or less; bool (B,)."""
        # The distance may exceed the density by what rounding of a pixel does to it; ask at ε itself.
        least, most = self._shares(x, adversarial)
        return (least <= torch.minimum(_share(x, self.eps), most)) & _in_range(adversarial)

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The least density of a fog that gives each image, (B,) in float64; infinite where no fog does."""
        least, most = self._shares(x, adversarial)
        greatest = x.double().amax(dim=(1, 2, 3))
        density = greatest * least / (1 - least).clamp_min(1e-12)
        return density.masked_fill((least > most) | ~_in_range(adversarial), torch.inf)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Images of the set as they are; of others the nearest with fog of density ε."""
        greatest, share = _greatest_and_share(x, self.eps)
        wanted = (adversarial - (1 - share) * x).mean(dim=1, keepdim=True)
        nearest = ((1 - share) * x + torch.minimum(wanted.clamp_min(0), share * greatest)).clamp(0, 1)
        return torch.where(self.contains(x, adversarial)[:, None, None, None], adversarial, nearest)

    def _shares(self, x: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds on the share ``t`` of fog in each image, (B,) in float64; the first exceeds the second where none will do.

        ``0 ≤ x' − (1 − t) x ≤ t M`` at every pixel gives a least share, and ``x' − (1 − t) x`` must agree between channels.
        """
        x, change = x.double(), adversarial.double() - x.double()
        greatest = x.amax(dim=(1, 2, 3), keepdim=True)
        room = torch.where(change > 0, greatest - x, x)
        needed = (change.abs() - ROUNDING).clamp_min(0)
        least = torch.where(needed > 0, needed / room.clamp_min(1e-12), 0).flatten(1).amax(dim=1)
        # Channels i and j: |change_i − change_j + t (x_i − x_j)| ≤ slack.
        first, second = torch.triu_indices(x.shape[1], x.shape[1], offset=1)
        slope, constant = (x[:, first] - x[:, second]).flatten(1), (change[:, first] - change[:, second]).flatten(1)
        slope, constant = torch.where(slope < 0, -slope, slope), torch.where(slope < 0, -constant, constant)
        low, high = -2 * ROUNDING - constant, 2 * ROUNDING - constant
        level = slope < ROUNDING
        impossible = (level & ((low > 0) | (high < 0))).any(dim=1)
        lows = (low / slope.clamp_min(ROUNDING)).masked_fill(level, -torch.inf)
        highs = (high / slope.clamp_min(ROUNDING)).masked_fill(level, torch.inf)
        bottom, top = lows.new_zeros(len(x), 1), lows.new_ones(len(x), 1)
        least = torch.maximum(least, torch.cat([lows, bottom], dim=1).amax(dim=1)).nan_to_num(torch.inf)
        return least, torch.cat([highs, top], dim=1).amin(dim=1).masked_fill(impossible, -torch.inf)


def _greatest_and_share(x: Tensor, density: float) -> tuple[Tensor, Tensor]:
    """``M`` and ``t`` of :func:`blend`, (B, 1, 1, 1)."""
    greatest = x.amax(dim=(1, 2, 3), keepdim=True)
    return greatest, density / (greatest + density)


def _share(x: Tensor, density: float) -> Tensor:
    return _greatest_and_share(x.double(), density)[1].flatten()


def _in_range(adversarial: Tensor) -> Tensor:
    return ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)  # false for NaN as well
