"""Adversarial fog (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import FogThreat
from rdc_bench.threats.fog import blend, cloud, side_of
from rdc_bench.threats.lp import linf


@attack("fog", threats=["fog"])
def fog(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: FogThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """Signed gradient ascent on the offsets of the diamond-square cloud from random starts; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: of the offsets, which span [−1, 1]; 0 means 1 / √steps, as in the paper.
        loss: ce, margin or dlr. eot: draws of the model's randomness averaged per step. restarts: independent random clouds.
    """
    return ascend(
        model,
        x,
        y,
        linf(1.0),
        (side_of(x.shape), side_of(x.shape)),
        lambda offsets: blend(x, cloud(offsets), threat.eps),
        generators=generators,
        allowed=lambda foggy: foggy.clamp(0, 1),  # a blend errs out of the range by rounding only
        objective=objective(loss),
        steps=steps,
        step_size=step_size or 1 / math.sqrt(steps),
        eot=eot,
        restarts=restarts,
    )
