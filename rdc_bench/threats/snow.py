"""Snow (Kang et al. 2019, arXiv 1908.08016): streaks of white at dense places, of which the attacker chooses the brightness.

Where a flake lies cannot be differentiated. So flakes are placed densely, in seven layers whose grids are shifted against one
another, and their intensities are what is optimised. All flakes of a layer fall in one direction, as a streak of random length
and width. Within each layer the intensities have a bounded mean, lest the whole image turns white.

The authors' code also brightens and pales the image whatever the snow; here an image without snow stays as it is. It bounds the
mean over regions of 8 × 8 flakes, here it is bounded over a layer; and it adds up flakes without limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.threats.grey import GreyThreat
from rdc_bench.threats.lp import linf

#: Pixels from one flake of a layer to the next.
SPACING = 4
#: Where the first flake of each layer lies: row, column.
FIRST = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (3, 0))
#: Greatest mean intensity of a layer's flakes.
BUDGET = 0.2
#: Flakes shine with this power of their intensity.
POWER = 4

#: Pixels that a streak reaches from its middle along each axis, at least and at most.
REACH = (2, 6)
#: Widths of streaks in pixels, and the share of the layers that have one up to each.
WIDTHS, SHARES = (1.0, 3.0, 5.0), (0.6, 0.9)


def flakes_of(shape: Sequence[int]) -> tuple[int, int, int]:
    """Shape of the intensities for images of shape (..., H, W)."""
    return len(FIRST), -(-shape[-2] // SPACING), -(-shape[-1] // SPACING)


def random_streaks(count: int, generators: Sequence[torch.Generator]) -> Tensor:
    """How the flakes of each layer of ``count`` images look, (count, layers, 13, 13) in [0, 1].

    The snow of an image falls to the left or to the right. A streak is a segment of a random length and direction to that side;
    its edges are smoothed over one pixel.
    """
    numbers = (linf(1.0).uniform((count, len(FIRST) + 1, 3), generators) + 1) / 2
    side = torch.where(numbers[:, -1, :1] < 0.5, -1.0, 1.0)
    lengths = REACH[0] + (REACH[1] - REACH[0]) * numbers[:, :-1, :2]
    right, down = side * lengths[..., 0], lengths[..., 1]
    widths = torch.tensor(WIDTHS)[torch.bucketize(numbers[:, :-1, 2].contiguous(), torch.tensor(SHARES), right=True)]
    return streak(right, down, widths)


def streak(right: Tensor, down: Tensor, width: Tensor) -> Tensor:
    """Segments from −(right, down) to (right, down) of some width, in pixels, about the middle of (..., 13, 13); 1 inside."""
    places = torch.arange(-REACH[1], REACH[1] + 1, dtype=right.dtype)
    x, y = places, places[:, None]
    right, down, width = right[..., None, None], down[..., None, None], width[..., None, None]
    along = ((x * right + y * down) / (right.square() + down.square())).clamp(-1, 1)
    distance = torch.hypot(x - along * right, y - along * down)
    return ((width + 1) / 2 - distance).clamp(0, 1)


def snow(intensities: Tensor, streaks: Tensor, size: Sequence[int]) -> Tensor:
    """The snow (B, 1, H, W) in [0, 1] of flakes with ``intensities`` (B, *flakes_of(size)) in [0, 1].

    Args: streaks: as from :func:`random_streaks`. size: H, W.
    """
    b, layers, rows, columns = intensities.shape
    flakes = intensities.new_zeros(b, layers, rows, SPACING, columns, SPACING)
    for layer, (row, column) in enumerate(FIRST):
        flakes[:, layer, :, row, :, column] = intensities[:, layer] ** POWER
    flakes = flakes.flatten(4).flatten(2, 3)[:, :, : size[0], : size[1]]
    weights = streaks.flatten(0, 1)[:, None].flip(2, 3).to(intensities)
    falling = F.conv2d(flakes.reshape(1, b * layers, *size), weights, padding=REACH[1], groups=b * layers)
    return falling.view(b, layers, *size).sum(dim=1, keepdim=True).clamp(max=1)


def within_budget(intensities: Tensor) -> Tensor:
    """``intensities`` (B, layers, H', W'), the layers that exceed ``BUDGET`` scaled down to it."""
    mean = intensities.mean(dim=(2, 3), keepdim=True)
    return intensities * (BUDGET / mean.clamp_min(BUDGET))


class SnowThreat(GreyThreat):
    """``{clip(x + ε s, 0, 1) : s a snow}``.

    What flakes and streaks there were cannot be told from the images. Membership is that of all grey patterns between 0 and ε,
    a superset, in which the distance is how bright the snow is at least.
    """

    kind = "snow"
    darkens = False
