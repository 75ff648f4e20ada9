"""Elastic deformation (Kang et al. 2019, arXiv 1908.08016): a bounded flow of every pixel, smoothed before it is applied."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.threats.stadv import StAdvThreat

#: Standard deviation of the Gaussian in pixels, and how many of them it reaches to each side, as in the authors' code.
DEVIATION = 3.0
REACH = 4


def smooth(flow: Tensor) -> Tensor:
    """``flow`` (B, H, W, 2) convolved with a Gaussian that sums to 1, so that no bound grows; edges go on as they end."""
    radius = round(REACH * DEVIATION)
    places = torch.arange(-radius, radius + 1, device=flow.device, dtype=flow.dtype)
    kernel = torch.exp(-((places / DEVIATION) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(2, 1, 1, -1)
    planes = F.pad(flow.permute(0, 3, 1, 2), (radius,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel, groups=2), kernel.transpose(2, 3), groups=2)
    return planes.permute(0, 2, 3, 1)


class ElasticThreat(StAdvThreat):
    """``{warp(x, smooth(f)) : ‖f‖_∞ ≤ ε}``, in the coordinates of :class:`StAdvThreat`.

    Smoothed flows are bounded by ε as well. Membership, distance and projection are those of all flows within ε, smooth or not:
    a superset, in which the distance is the least that any flow needs.
    """

    kind = "elastic"
