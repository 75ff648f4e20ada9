"""Gabor noise (Lagae et al. 2009, doi 10.1145/1531326.1531360) with adversarial weights (Kang et al. 2019, arXiv 1908.08016).

A kernel, a Gaussian times a wave, or the sum of several in evenly spaced directions, is put at few random places of the image
with weights that the attacker chooses. The sum is scaled to greatest magnitude 1. The authors' code also evens out the noise's
variance, and shifts it so that it only brightens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.threats.grey import GreyThreat
from rdc_bench.threats.lp import linf

#: Side of a kernel in pixels, and the share of the pixels at which one is put.
SIDE = 23
DENSITY = 1 / 14

#: Standard deviation of the Gaussian, as a share of the side; periods of the wave in a side; directions. Least and greatest.
DEVIATIONS = (0.1, 0.4)
PERIODS = (3.0, SIDE / 4)
DIRECTIONS = (1, 10)


def kernel(deviation: Tensor, periods: Tensor, angle: Tensor, directions: Tensor) -> Tensor:
    """``exp(−r²/2σ²) Σ_k cos(2π λ ⟨r, e(θ + π k / K)⟩)`` with e(θ) the unit vector, (B, SIDE, SIDE); arguments (B,).

    Args: deviation: ``σ``. periods: ``λ``. angle: ``θ`` in radians. directions: ``K``, whole numbers.
    """
    places = torch.linspace(-0.5, 0.5, SIDE)
    x, y = places, places[:, None]
    waves = torch.zeros(len(deviation), SIDE, SIDE)
    for k in range(DIRECTIONS[1]):
        turned = (angle + math.pi * k / directions)[:, None, None]
        wave = torch.cos(2 * math.pi * periods[:, None, None] * (x * turned.cos() + y * turned.sin()))
        waves += wave * (k < directions)[:, None, None]
    return waves * torch.exp(-(x**2 + y**2) / (2 * deviation[:, None, None] ** 2))


def random_kernels(count: int, generators: Sequence[torch.Generator]) -> Tensor:
    """A kernel for each of ``count`` images, with parameters uniform in their ranges, (count, SIDE, SIDE)."""
    deviation, periods, angle, directions = ((linf(1.0).uniform((count, 4), generators) + 1) / 2).unbind(dim=1)
    return kernel(
        DEVIATIONS[0] + (DEVIATIONS[1] - DEVIATIONS[0]) * deviation,
        PERIODS[0] + (PERIODS[1] - PERIODS[0]) * periods,
        math.pi * angle,
        (DIRECTIONS[0] + (DIRECTIONS[1] * directions).floor()).clamp(max=DIRECTIONS[1]),
    )


def random_places(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Where kernels are put in images of shape (B, C, H, W): each pixel with probability ``DENSITY``, bool (B, H, W)."""
    return (linf(1.0).uniform((shape[0], *shape[2:]), generators) + 1) / 2 < DENSITY


def noise(weights: Tensor, kernels: Tensor) -> Tensor:
    """The sum of kernels (B, SIDE, SIDE) at all pixels with ``weights`` (B, H, W), scaled to [−1, 1]; (B, 1, H, W)."""
    flipped = kernels.flip(1, 2)[:, None].to(weights)
    total = F.conv2d(weights[None], flipped, padding=SIDE // 2, groups=len(weights)).transpose(0, 1)
    return total / total.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)


class GaborThreat(GreyThreat):
    """``{clip(x + ε n, 0, 1) : n a Gabor noise}``.

    What kernel it was, and where it was put, cannot be told from the images. Membership is that of all grey patterns within ε,
    a superset, in which the distance is the least magnitude of the noise.
    """

    kind = "gabor"
    darkens = True
