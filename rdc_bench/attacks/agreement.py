"""How many draws of a model's randomness an attack should average a step, from how far gradients of two draws agree.

For gradients ``g + noise`` of a fixed size, a cosine ``c`` between two draws means that the mean of ``m`` of them has the
cosine ``√(m c / (1 + (m − 1) c))`` with the true gradient ``g``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: The cosine with the true gradient that the mean over draws should reach.
WANTED = 0.9


def needed(cosine: float) -> float:
    """Draws whose mean has the cosine :data:`WANTED` with the true gradient, at least 1; infinite where draws do not agree."""
    if cosine <= 0:
        return math.inf
    return max(1.0, WANTED**2 * (1 - cosine) / ((1 - WANTED**2) * cosine))


def cosines(gradients: Sequence[Tensor]) -> Tensor:
    """Cosine similarity per image, the mean over all pairs of draws, (B,).

    It is 0 where a gradient is zero, and NaN where one is not finite.

    Args: gradients: of two draws or more, each (B, C, H, W).
    """
    flat = [gradient.double().flatten(1) for gradient in gradients]
    return torch.stack([torch.cosine_similarity(a, b, dim=1) for a, b in itertools.combinations(flat, 2)]).mean(dim=0)
