"""Does a gradient keep its promise where an attack followed it?

Along the direction of steepest ascent ``v`` the gradient ``g`` promises that the margin rises by ``h g·v``, and
``f(x + hv) − f(x)`` is what it rises by, under the same draws of the model's randomness (common random numbers). A right
gradient keeps its promise at a step that is neither so small that rounding shows nor so large that the function bends. One that
is negated, of another function or far too steep keeps it at none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import margin
from rdc_bench.global_generators import model_apart
from rdc_bench.randomness import Key, draws_for, seed_of

#: Lengths of the steps, as shares of the largest change of a pixel.
SHARES = (1 / 16, 1 / 4, 1.0)
#: The largest change of a pixel that is looked at under threats that do not bound it.
PIXEL = 8 / 255
#: Units in the last place of the largest logit that two sums of float32 may differ by without meaning anything.
ROUNDING = 64


def disagreement(measured: Tensor, predicted: Tensor) -> Tensor:
    """``|measured − predicted| / (|measured| + |predicted|)``, in [0, 1].

    It is 0 where both are zero, and 1 where their signs differ or one of them is NaN.
    """
    size = measured.abs() + predicted.abs()
    return torch.where(size == 0, torch.zeros_like(size), (measured - predicted).abs() / size).nan_to_num(nan=1.0)


def slope_errors(model: nn.Module, points: Tensor, y: Tensor, keys: Sequence[Key], reach: float) -> Tensor:
    """The least :func:`disagreement` over steps of ``SHARES × reach`` in ℓ∞ along the gradient's signs, (B,).

    Costs two evaluations and one for each length.

    Args: points: (B, C, H, W) in [0, 1]; no step leaves that range. keys: of the draws, one per point.
    """

    def alike() -> contextlib.ExitStack:
        """Announced and kept apart anew for each call of the model, so that all of them see the same draws."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(draws_for(keys))
            stack.enter_context(model_apart(model, points.device, seed_of(*keys[0], "model")))
            return stack.pop_all()

    with alike():
        at = evaluate(model, points, y, margin, 1)
    value = margin(at.logits.double(), y)
    gradient = at.gradient.double()
    tolerance = ROUNDING * torch.finfo(torch.float32).eps * at.logits.double().abs().amax(dim=1)
    least = torch.ones_like(value)
    for share in SHARES:
        moved = (points + share * reach * gradient.sign().nan_to_num().to(points)).clamp(0, 1)
        promised = (gradient * (moved - points).double()).flatten(1).sum(dim=1)
        with alike(), torch.no_grad():
            rise = margin(model(moved).double(), y) - value
        # Changes that drown in rounding say nothing against a gradient.
        error = disagreement(rise, promised).masked_fill((rise - promised).abs() <= tolerance, 0.0)
        least = torch.minimum(least, error)
    return least
