"""Which of the points that an attack visits it returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Best:
    """The most adversarial point offered for each image so far; the clean image before any.

    Of a deterministic model the first misclassified point is kept for good, because it settles the matter. Of a stochastic
    model (``model.stochastic``) a misclassified point may be one lucky draw: only the mean objective counts.

    Attributes:
        points: (B, C, H, W). values: objective of each point, (B,); +inf where a deterministic model is fooled.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self._stochastic = bool(getattr(model, "stochastic", False))
        self.points = x.clone()
        self.values = torch.full((len(x),), -torch.inf, device=x.device)

    def offer(self, points: Tensor, values: Tensor, logits: Tensor, y: Tensor) -> None:
        """Consider ``points`` (B, C, H, W) with objective ``values`` (B,) and mean ``logits`` (B, K)."""
        if not self._stochastic:
            values = torch.where(logits.argmax(dim=1) != y, torch.inf, values)
        better = values > self.values
        self.points = torch.where(better[:, None, None, None], points, self.points)
        self.values = torch.where(better, values, self.values)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to find."""
        return bool((self.values == torch.inf).all())
