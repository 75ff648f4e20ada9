"""Projected gradient descent on JPEG coefficients (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend, inward
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import JpegThreat
from rdc_bench.threats.jpeg import change_of, coefficients


@attack("jpeg", threats=["jpeg-linf", "jpeg-l2"])
def jpeg(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: JpegThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """PGD on the quantised DCT coefficients from random starts, with EOT; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: in quantisation steps; 0 means eps / √steps, as in the paper. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    return ascend(
        model,
        x,
        y,
        threat.ball,
        coefficients(x).shape[1:],
        lambda perturbation: x + change_of(perturbation, x.shape[2:]),
        generators=generators,
        allowed=lambda changed: changed.clamp(0, 1),
        usable=inward,
        objective=objective(loss),
        steps=steps,
        step_size=step_size or threat.eps / math.sqrt(steps),
        eot=eot,
        restarts=restarts,
    )
