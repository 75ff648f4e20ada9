"""Elastic attack (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import ElasticThreat
from rdc_bench.threats.elastic import smooth
from rdc_bench.threats.lp import linf
from rdc_bench.threats.stadv import warp


@attack("elastic", threats=["elastic"])
def elastic(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ElasticThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """Signed gradient ascent on the flow before smoothing, from random starts, with EOT; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: 0 means eps / √steps, as in the paper. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    return ascend(
        model,
        x,
        y,
        linf(threat.eps),
        (*x.shape[2:], 2),
        lambda flow: warp(x, smooth(flow)),
        generators=generators,
        allowed=lambda moved: moved.clamp(0, 1),  # interpolation errs out of the range by rounding only
        objective=objective(loss),
        steps=steps,
        step_size=step_size or threat.eps / math.sqrt(steps),
        eot=eot,
        restarts=restarts,
    )
