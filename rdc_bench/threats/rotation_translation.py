"""Rotation and translation (Engstrom et al. 2019, arXiv 1712.02779).

An image is turned about its centre and then shifted, read by bilinear interpolation; what comes in from outside is black. The
three parameters (angle, shift to the right, shift down) are in units of the largest that the paper allows on MNIST: 30 degrees,
and 3 of 28 pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.threats.stadv import require_plane

#: One unit of the parameters.
UNIT_ANGLE = math.radians(30)
UNIT_SHIFT = 3 / 28

#: How far a pixel may be from that of the best transformation found: a quarter of a grey level.
TOLERANCE = 1e-3

#: The search is made on images of about this size; larger ones are averaged down first and refined at full size after.
SEARCH_SIZE = 32
#: Starting points from which a search is refined, the most promising first.
REFINED = 8
#: Candidates that are computed at a time.
CHUNK = 512


def transform(x: Tensor, parameters: Tensor) -> Tensor:
    """``x`` (B, C, H, W) turned and shifted by ``parameters`` (B, 3: angle, right, down), in the module's units."""
    h, w = x.shape[2:]
    angle = UNIT_ANGLE * parameters[:, 0, None, None]
    right, down = UNIT_SHIFT * w * parameters[:, 1, None, None], UNIT_SHIFT * h * parameters[:, 2, None, None]
    columns = torch.arange(w, device=x.device, dtype=x.dtype) - (w - 1) / 2 - right
    rows = torch.arange(h, device=x.device, dtype=x.dtype)[:, None] - (h - 1) / 2 - down
    source_x = columns * angle.cos() + rows * angle.sin()
    source_y = rows * angle.cos() - columns * angle.sin()
    places = torch.stack([source_x * (2 / (w - 1)), source_y * (2 / (h - 1))], dim=-1)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="zeros", align_corners=True)


class RotationTranslationThreat:
    """``{transform(x, u) : ‖u‖_∞ ≤ ε}``.

    Membership is decided from the images alone: a grid over the parameters, fine enough that no pixel is further than one from
    its place, gives starting points that least squares refine. An image is inside when some transformation within the bounds
    comes within ``TOLERANCE`` of it everywhere, which makes the set that much larger than the true one.
    """

    kind = "rotation-translation"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """A quarter turn to either side, and shifts by a third of the image."""
        require_plane(self.kind, shape)
        return 3.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether some transformation within ε gives each image, up to ``TOLERANCE``; bool (B,)."""
        return self.distance(x, adversarial).isfinite().to(x.device)

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The largest parameter of the transformation found, (B,); infinite where none within ε gives the image."""
        parameters, errors = self._fit(x, adversarial)
        in_range = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1).cpu()  # false for NaN as well
        return parameters.abs().amax(dim=1).masked_fill(~in_range | ~(errors <= TOLERANCE), torch.inf)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The transformation of ``x`` found that comes nearest in the Euclidean norm."""
        parameters, _ = self._fit(x, adversarial)
        return transform(x, parameters.to(x)).clamp(0, 1)

    def _fit(self, x: Tensor, adversarial: Tensor) -> tuple[Tensor, Tensor]:
        """Best parameters (B, 3) and the largest error of a pixel under them (B,), in float64 on the CPU."""
        pairs = zip(x.detach().double().cpu().split(1), adversarial.detach().double().cpu().split(1), strict=True)
        found = [self._fit_one(image, goal.nan_to_num()) for image, goal in pairs]
        parameters = torch.stack(found)
        images = transform(x.double().cpu(), parameters)
        return parameters, (images - adversarial.double().cpu()).abs().flatten(1).amax(dim=1)

    def _fit_one(self, x: Tensor, goal: Tensor) -> Tensor:
        """Parameters (3,) for one image and goal (1, C, H, W)."""
        factor = max(1, min(x.shape[2:]) // SEARCH_SIZE)
        small, small_goal = F.avg_pool2d(x, factor), F.avg_pool2d(goal, factor)
        best, least = torch.zeros(3, dtype=x.dtype), math.inf
        for start in self._starts(small, small_goal):
            coarse = _refine(small, small_goal, start) if factor > 1 else start
            parameters = _refine(x, goal, coarse).clamp(-self.eps, self.eps)
            difference = transform(x, parameters[None]) - goal
            if (error := float(difference.square().sum())) < least:
                best, least = parameters, error
            if difference.abs().max() <= TOLERANCE:
                break
        return best

    def _starts(self, x: Tensor, goal: Tensor) -> Tensor:
        """The most promising points of the grid, (REFINED + 1, 3), after the identity, which is always tried."""
        h, w = x.shape[2:]
        corner = math.hypot(h - 1, w - 1) / 2
        reaches = (self.eps * UNIT_ANGLE * corner, self.eps * UNIT_SHIFT * w, self.eps * UNIT_SHIFT * h)  # in pixels
        axes = [torch.linspace(-self.eps, self.eps, 2 * math.ceil(reach) + 1, dtype=x.dtype).tolist() for reach in reaches]
        grid = torch.tensor(list(itertools.product(*axes)), dtype=x.dtype)
        errors = torch.cat(
            [
                (transform(x.expand(len(part), -1, -1, -1), part) - goal).square().sum(dim=(1, 2, 3))
                for part in grid.split(CHUNK)
            ]
        )
        promising = grid[errors.topk(min(REFINED, len(grid)), largest=False).indices]
        return torch.cat([torch.zeros(1, 3, dtype=x.dtype), promising])


def _refine(x: Tensor, goal: Tensor, start: Tensor) -> Tensor:
    """The least-squares fit of ``transform(x, ·)`` to ``goal`` near ``start`` (3,)."""

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return (transform(x, torch.from_numpy(parameters)[None]) - goal).flatten().numpy()

    return torch.from_numpy(least_squares(residuals, start.numpy(), max_nfev=50).x)
