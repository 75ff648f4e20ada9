"""JPEG: changes to the quantised DCT coefficients of an image (Kang et al. 2019, arXiv 1908.08016).

The image is cut into blocks of 8 × 8 pixels, each of which has 64 coefficients of the discrete cosine transform. A change of a
coefficient is measured in the quantisation step that JPEG at quality 50 gives it, so that fine patterns, which JPEG hardly
keeps, may change more than coarse ones. Images of three channels are treated as YCbCr, others channel by channel as luminance.

As in the paper the image itself is not rounded, so that no change leaves it as it is. Chroma is not subsampled here; and ε is
the bound of a coefficient itself, where the authors' code halves it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linprog, lsq_linear
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.threats.lp import LpThreat

#: Quantisation tables of JPEG's Annex K (ITU-T T.81), which encoders use at quality 50.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
FINEST_STEP = 10

#: From RGB to luminance and the two colour differences (ITU-T T.871), without the offset, which no change has.
YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)

#: Slack of the membership test in quantisation steps: float32 pixels err by 6e-8, a coefficient by up to 1e-5.
ROUNDING = 1e-4


def coefficients(change: Tensor) -> Tensor:
    """DCT coefficients of a change of an image, (B, C, H, W), in quantisation steps.

    Returns: (B, C, H', W') with H and W rounded up to multiples of 8; each block of coefficients takes its block's place.
    """
    h, w = change.shape[2:]
    blocks = _blocks(F.pad(change, (0, -w % 8, 0, -h % 8)))
    if change.shape[1] == 3:
        blocks = torch.einsum("ij,bjrcuv->bircuv", torch.tensor(YCBCR, dtype=torch.float64).to(change), blocks)
    dct = _dct().to(change)
    return _unblocks(dct @ blocks @ dct.T * 255 / _steps(change.shape[1]).to(change)[:, None, None])


def change_of(coefficients: Tensor, size: Sequence[int]) -> Tensor:
    """The change (B, C, *size) that ``coefficients`` (B, C, H', W') make: the inverse of :func:`coefficients`, cropped."""
    dct = _dct().to(coefficients)
    channels = coefficients.shape[1]
    blocks = dct.T @ (_blocks(coefficients) * _steps(channels).to(coefficients)[:, None, None] / 255) @ dct
    if channels == 3:
        to_rgb = torch.linalg.inv(torch.tensor(YCBCR, dtype=torch.float64)).to(coefficients)
        blocks = torch.einsum("ij,bjrcuv->bircuv", to_rgb, blocks)
    return _unblocks(blocks)[:, :, : size[0], : size[1]]


class JpegThreat:
    """``{clip(x + change_of(q), 0, 1) : ‖q‖_p ≤ ε}`` for p = ∞ or 2.

    Membership and distance are decided from the images alone, and exactly. Where a pixel lies strictly inside the range, its
    change is known. Where it is 0 or 1 it may have been clipped, so that a bound on its change is known; of what pads the image
    to whole blocks nothing is known. The smallest norm that agrees with all this is a linear programme (ℓ∞) or a bounded
    least-squares problem (ℓ2) for each block.
    """

    def __init__(self, norm: Literal["linf", "l2"], eps: float) -> None:
        self.ball = LpThreat(norm, eps)
        self.kind = f"jpeg-{norm}"
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """No change between images of [0, 1] has larger coefficients."""
        return 255 / FINEST_STEP * (8 if self.ball.norm == "linf" else math.prod(shape) ** 0.5)

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image can be reached by coefficients within ε; bool (B,)."""
        blocks = math.prod(-(-size // 8) for size in x.shape[2:])
        slack = ROUNDING * (1 if self.ball.norm == "linf" else blocks**0.5)
        return (self.distance(x, adversarial) <= self.eps + slack).to(x.device)

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The least norm of coefficients that give each image, (B,); infinite for images that are not within [0, 1]."""
        in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)  # false for NaN as well
        x, adversarial = x.detach().double().cpu(), adversarial.detach().double().cpu()
        norms = [
            self._least_norm(image, goal) if valid else math.inf
            for image, goal, valid in zip(x, adversarial, in_range.tolist(), strict=True)
        ]
        return torch.tensor(norms, dtype=torch.float64)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The image whose change has the coefficients of ``adversarial − x``, clamped (ℓ∞) or shrunk (ℓ2) to ε, clipped."""
        within = self.ball.within(coefficients(adversarial - x))
        return (x + change_of(within, x.shape[2:])).clamp(0, 1)

    def _least_norm(self, x: Tensor, adversarial: Tensor) -> float:
        """Of one image (C, H, W) in float64."""
        change = adversarial - x
        least = torch.where(adversarial <= 0, -torch.inf, change)
        greatest = torch.where(adversarial >= 1, torch.inf, change)
        h, w = x.shape[1:]
        padding = (0, -w % 8, 0, -h % 8)
        least, greatest = F.pad(least, padding, value=-torch.inf), F.pad(greatest, padding, value=torch.inf)
        matrix = _matrix(len(x))
        solve = _least_maximum if self.ball.norm == "linf" else _least_length
        lows, highs = (
            _blocks(bound[None])[0].permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1).numpy() for bound in (least, greatest)
        )
        norms = [
            0.0 if (low <= 0).all() and (high >= 0).all() else solve(matrix, low, high)
            for low, high in zip(lows, highs, strict=True)
        ]
        return max(norms) if self.ball.norm == "linf" else math.hypot(*norms)


def jpeg_linf(eps: float) -> JpegThreat:
    """Every coefficient changed by at most ``eps`` quantisation steps."""
    return JpegThreat("linf", eps)


def jpeg_l2(eps: float) -> JpegThreat:
    """All coefficients of the image changed by at most ``eps`` quantisation steps, in the Euclidean norm."""
    return JpegThreat("l2", eps)


def _least_maximum(matrix: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """``min ‖matrix · δ‖_∞`` over ``low ≤ δ ≤ high``."""
    free = low < high
    known = matrix[:, ~free] @ low[~free]
    if not free.any():
        return float(np.abs(known).max())
    inner, ones = matrix[:, free], np.ones((len(matrix), 1))
    solution = linprog(
        np.r_[np.zeros(inner.shape[1]), 1.0],
        A_ub=np.block([[inner, -ones], [-inner, -ones]]),
        b_ub=np.r_[-known, known],
        bounds=[*zip(low[free], high[free], strict=True), (0, None)],
    )
    return float(solution.fun) if solution.success else math.inf


def _least_length(matrix: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """``min ‖matrix · δ‖₂`` over ``low ≤ δ ≤ high``."""
    free = low < high
    known = matrix[:, ~free] @ low[~free]
    if not free.any():
        return float(np.linalg.norm(known))
    solution = lsq_linear(matrix[:, free], -known, bounds=(low[free], high[free]), method="bvls")
    return math.sqrt(2 * solution.cost)


@functools.cache
def _matrix(channels: int) -> np.ndarray:
    """What takes the changes of a block's 64 · C pixels to its coefficients."""
    units = torch.eye(64 * channels, dtype=torch.float64).view(-1, channels, 8, 8)
    return coefficients(units).flatten(1).T.numpy()


def _dct() -> Tensor:
    """The orthonormal matrix of the discrete cosine transform of 8 values."""
    frequency, place = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * place + 1) * frequency * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _steps(channels: int) -> Tensor:
    """Quantisation steps (C, 8, 8) in grey levels of 255."""
    tables = [LUMINANCE, CHROMINANCE, CHROMINANCE] if channels == 3 else [LUMINANCE] * channels
    return torch.tensor(tables, dtype=torch.float64)


def _blocks(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, H/8, W/8, 8, 8)."""
    return x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)


def _unblocks(blocks: Tensor) -> Tensor:
    return blocks.transpose(3, 4).flatten(4).flatten(2, 3)
