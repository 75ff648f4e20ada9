"""Spatial transformation (Xiao et al. 2018, arXiv 1801.02612): every pixel may move by a bounded flow.

The flow gives each output pixel the place in the input that it is read from, by bilinear interpolation. Flows are measured in
the coordinates of ``grid_sample``, where the image spans [−1, 1], and bounded in the maximum norm (0.05 is 0.7 pixels of 28).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.core.errors import UserError

#: Slack of the membership test in pixel values; interpolation in float32 errs by about 1e-6.
ROUNDING = 1e-5


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Read each pixel of ``x`` (B, C, H, W) at its own place displaced by ``flow`` (B, H, W, 2: right, down)."""
    b, _, h, w = x.shape
    ys = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)
    xs = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)
    identity = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).expand(b, h, w, 2)
    return F.grid_sample(x, identity + flow, mode="bilinear", padding_mode="border", align_corners=True)


class StAdvThreat:
    """``{warp(x, f) : ‖f‖_∞ ≤ ε}``.

    Membership is decided from the images alone. An output pixel depends on its own flow vector only, and the values that a
    pixel can take form an interval, because interpolation is continuous. Within one cell of the pixel grid a bilinear
    function has its extremes at corners, so the bounds over the window [−ε, ε]² are found among finitely many points: the
    window's corners and edges, and the grid lines that it crosses. With one channel the test is exact. With several, each
    channel is tested alone although they share the flow: a superset, which errs against the defence.
    """

    kind = "stadv"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """Half the image's width, beyond which a flow can read anything anywhere."""
        require_plane(self.kind, shape)
        return 1.0

    def bounds(self, x: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Least and greatest value that each pixel can take, both like ``x``; ``eps`` (B,) replaces the threat's own."""
        eps = torch.full((len(x),), self.eps) if eps is None else eps
        h, w = x.shape[2:]
        low = high = x
        for dy in _extremal_offsets(eps, h):
            for dx in _extremal_offsets(eps, w):
                flow = torch.stack([dx, dy], dim=1).to(x)[:, None, None, :].expand(-1, h, w, -1)
                moved = warp(x, flow)
                low, high = torch.minimum(low, moved), torch.maximum(high, moved)
        return low, high

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image can be reached by some flow within ε (see the class for several channels)."""
        return _between(adversarial, *self.bounds(x))

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The smallest bound that reaches each image, by bisection to ε/1000; infinite for images outside the threat set."""
        missed = torch.zeros(len(x), dtype=torch.float64)
        reached = missed.masked_fill(~_between(adversarial, x, x).cpu(), self.eps)
        for _ in range(10):
            middle = (reached + missed) / 2
            inside = _between(adversarial, *self.bounds(x, middle)).cpu()
            reached, missed = torch.where(inside, middle, reached), torch.where(inside, missed, middle)
        return torch.where(self.contains(x, adversarial).cpu(), reached, torch.inf)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The nearest image between the pixels' bounds (with several channels: see the class)."""
        low, high = self.bounds(x)
        return adversarial.clamp(low, high).clamp(0, 1)


def require_plane(kind: str, shape: Sequence[int]) -> None:
    """Refuse images of shape (C, H, W) in which nothing can move."""
    if min(shape[1:]) < 2:
        raise UserError(f"threat {kind} needs images of at least 2 × 2 pixels, not {shape[1]} × {shape[2]}")


def _extremal_offsets(eps: Tensor, size: int) -> list[Tensor]:
    """Offsets along one axis, (B,) each, among which interpolation has its extremes: ±ε and the whole pixels between."""
    pixel = 2 / (size - 1)
    reach = math.ceil(float(eps.max()) / pixel)
    return [(torch.full_like(eps, k * pixel)).clamp(-eps, eps) for k in range(-reach, reach + 1)]


def _between(adversarial: Tensor, low: Tensor, high: Tensor) -> Tensor:
    inside = (adversarial >= low - ROUNDING) & (adversarial <= high + ROUNDING)
    in_range = (adversarial >= 0) & (adversarial <= 1)  # false for NaN as well
    return (inside & in_range).flatten(1).all(dim=1)
