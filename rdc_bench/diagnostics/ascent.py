"""PGD on the margin with random starts, as :func:`rdc_bench.attacks.lp.pgd.pgd` does it, with its history kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import margin
from rdc_bench.threats import LpThreat


class Ascent(NamedTuple):
    """The most adversarial points (B, C, H, W), those after the first start alone (B, C, H, W), and what led to them.

    ``starts``, ``ends``: first and last point of the first start. ``margins``: (restarts, steps + 1, B), at all points visited.
    """

    points: Tensor
    first: Tensor
    starts: Tensor
    ends: Tensor
    margins: Tensor


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    generators: Sequence[torch.Generator],
    steps: int,
    restarts: int,
) -> Ascent:
    """Steps of 2.5 ε/steps along the steepest direction (Madry et al. 2018, arXiv 1706.06083); one generator per image."""
    best = Best(model, x)
    step_size = 2.5 * threat.eps / steps
    margins = []
    for restart in range(restarts):
        point = start = threat.random_start(x, generators)
        for step in range(steps + 1):
            value, gradient, logits = evaluate(model, point, y, margin, 1)
            best.offer(point, value, logits, y)
            margins.append(value)
            if step < steps:
                point = threat.project(x, point + step_size * threat.steepest(gradient.nan_to_num(), x))
        if restart == 0:
            first, starts, ends = best.points, start, point
    return Ascent(best.points, first, starts, ends, torch.stack(margins).unflatten(0, (restarts, steps + 1)))


def joined(parts: Sequence[Ascent]) -> Ascent:
    """The ascents of several batches as one."""
    *images, margins = zip(*parts, strict=True)
    points, first, starts, ends = (torch.cat(part) for part in images)
    return Ascent(points, first, starts, ends, torch.cat(margins, dim=2))
