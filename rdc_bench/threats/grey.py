"""Grey patterns that are added to an image: what snow and Gabor noise have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Slack of the membership test in pixel values; a sum of float32 pixels errs by less.
ROUNDING = 1e-6


class GreyThreat:
    """``{clip(x + n, 0, 1) : n the same in all channels, L ≤ n ≤ ε}`` with ``L`` either ``−ε`` or 0.

    Membership and distance are exact for this set. At a pixel that lies strictly inside the range the pattern is known; at one
    of 0 or 1 it may have been clipped, and is bounded from one side. The channels' bounds must leave some pattern over.

    Args: darkens: whether the pattern may be negative.
    """

    kind: str
    darkens: bool

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """From black to white."""
        return 1.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is one with a grey pattern within the bounds; bool (B,)."""
        return self.distance(x, adversarial) <= self.eps + ROUNDING

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The greatest value of the least pattern that gives each image, (B,) in float64; infinite where none does."""
        change = adversarial.double() - x.double()
        least = change.masked_fill(adversarial <= 0, -torch.inf).amax(dim=1)
        most = change.masked_fill(adversarial >= 1, torch.inf).amin(dim=1)
        if not self.darkens:
            least = least.clamp_min(0)
        size = torch.where(least > 0, least, (-most).clamp_min(0))
        valid = ((adversarial >= 0) & (adversarial <= 1)).all(dim=1) & (least <= most + 2 * ROUNDING)  # false for NaN as well
        return size.masked_fill(~valid, torch.inf).flatten(1).amax(dim=1)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Images of the set as they are; of others one with the mean change of all channels, clamped to the bounds."""
        pattern = (adversarial - x).mean(dim=1, keepdim=True).clamp(-self.eps if self.darkens else 0, self.eps)
        return torch.where(self.contains(x, adversarial)[:, None, None, None], adversarial, (x + pattern).clamp(0, 1))
