"""An adversarial patch (Brown et al. 2017, arXiv 1712.09665): whatever the attacker likes, in one small square of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.core.errors import UserError

#: Changes below this are rounding: the spacing of float32 pixels near 1 is 6e-8.
ROUNDING = 1e-7


class PatchThreat:
    """``{x' ∈ [0,1]^d : all changed pixels fit into one square of side ε · min(H, W)}``; exact.

    Sides are whole pixels, so that the bound is rounded down. The square is not turned, and lies within the image.
    """

    kind = "patch"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def side(self, shape: Sequence[int]) -> int:
        """Pixels along a side of the square, for images of shape (..., H, W)."""
        return int(self.eps * min(shape[-2:]) + 1e-6)

    def max_eps(self, shape: Sequence[int]) -> float:
        """The whole image, if it is a square. Raises ``UserError`` where ε is less than a pixel."""
        if self.side(shape) < 1:
            least = f"1/{min(shape[-2:])}"
            raise UserError(
                f"a patch of eps {self.eps:g} is less than a pixel of {shape[-2]} × {shape[-1]}; the least is {least}"
            )
        return 1.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is within [0, 1] and changed in such a square alone; bool (B,)."""
        return self.distance(x, adversarial) <= self.side(x.shape) / min(x.shape[2:]) + 1e-9

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Side of the smallest square that holds all changed pixels, as a share of min(H, W), (B,) in float64.

        It may exceed 1 in an image that is no square; infinite for images that are not within [0, 1].
        """
        changed = ~((adversarial - x).abs() <= ROUNDING).all(dim=1)
        in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)  # false for NaN as well
        side = torch.maximum(_extent(changed.any(dim=1)), _extent(changed.any(dim=2)))
        return (side.double() / min(x.shape[2:])).masked_fill(~in_range, torch.inf)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The nearest image: the change is kept where the square holds most of it, in the Euclidean norm."""
        adversarial = adversarial.clamp(0, 1)
        corners = self.best_corners((adversarial - x).double().square().sum(dim=1))
        return torch.where(self.mask(corners, x.shape), adversarial, x)

    def best_corners(self, gain: Tensor) -> Tensor:
        """Upper left corners (B, 2: row, column) of the squares in which ``gain`` (B, H, W) sums to most."""
        sums = F.avg_pool2d(gain[:, None], self.side(gain.shape), stride=1)[:, 0]
        best = sums.flatten(1).argmax(dim=1)
        return torch.stack([best // sums.shape[2], best % sums.shape[2]], dim=1)

    def mask(self, corners: Tensor, shape: Sequence[int]) -> Tensor:
        """Which pixels of images of shape (B, C, H, W) the squares at ``corners`` cover, bool (B, 1, H, W)."""
        rows, columns = (torch.arange(size, device=corners.device) for size in shape[2:])
        top, left = corners[:, :1], corners[:, 1:]
        side = self.side(shape)
        within_rows = (rows >= top) & (rows < top + side)
        within_columns = (columns >= left) & (columns < left + side)
        return (within_rows[:, :, None] & within_columns[:, None, :])[:, None]


def _extent(changed: Tensor) -> Tensor:
    """From the first to the last place that is true, (B,), of bool (B, N)."""
    places = torch.arange(changed.shape[1], device=changed.device).expand_as(changed)
    first = places.masked_fill(~changed, changed.shape[1]).amin(dim=1)
    last = places.masked_fill(~changed, -1).amax(dim=1)
    return (last - first + 1).clamp_min(0)
