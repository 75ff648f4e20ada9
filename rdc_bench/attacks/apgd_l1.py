"""Auto-PGD under ℓ1 (Croce & Hein 2021, arXiv 2103.01208): how many coordinates a step moves adapts to what was useful."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import sparse_sign

#: Share of the coordinates that the first steps move.
FIRST_SHARE = 0.2
#: Steps between reviews, as a share of all.
REVIEW = 0.04
#: By how much a review lowers the number of coordinates below that of the best point, and the step size.
REDUCTION = 1.5
#: The least step size, as a share of eps.
LEAST_STEP = 0.1
#: A best point with fewer than this share of the coordinates of the last one is a sparser one, and steps are long again.
SPARSER = 0.95
#: Changes below this are rounding, not coordinates in use.
UNUSED = 1e-6


@attack("apgd-l1", threats=["l1"])
def apgd_l1(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """Auto-PGD under ℓ1 with adaptive sparsity (Croce & Hein 2021, arXiv 2103.01208).

    Options:
        steps: per restart. loss: ce, margin or dlr. eot: draws of the model's randomness averaged per step.
        restarts: independent random starts.
    """
    loss_function = objective(loss)
    review = max(math.floor(REVIEW * steps), 1)
    best = Best(model, x)
    for _ in range(restarts):
        point = top = threat.random_start(x, generators)
        top_value = torch.full_like(x[:, 0, 0, 0], -torch.inf)
        top_gradient = torch.zeros_like(x)
        in_use = torch.full_like(top_value, x[0].numel())
        count = FIRST_SHARE * in_use
        step_size = torch.full_like(top_value, threat.eps)
        for i in range(steps + 1):
            if best.complete:
                return best.points
            value, gradient, logits = evaluate(model, point, y, loss_function, eot)
            best.offer(point, value, logits, y)
            higher = value > top_value
            top, top_gradient = _where(higher, point, top), _where(higher, gradient, top_gradient)
            top_value = torch.where(higher, value, top_value)
            if i > 0 and i % review == 0:
                now_in_use = ((top - x).abs() > UNUSED).sum(dim=(1, 2, 3)).to(in_use)
                sparser = now_in_use < SPARSER * in_use
                shorter = (step_size / REDUCTION).clamp_min(LEAST_STEP * threat.eps)
                step_size = torch.where(sparser, threat.eps, shorter)
                point, gradient = _where(sparser, top, point), _where(sparser, top_gradient, gradient)
                in_use, count = now_in_use, now_in_use / REDUCTION
            if i < steps:
                direction = sparse_sign(gradient, x, count.ceil().clamp_min(1))
                point = threat.project(x, point + step_size[:, None, None, None] * direction)
    return best.points


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition[:, None, None, None], yes, no)
