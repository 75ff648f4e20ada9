"""Adversarial snow (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend, inward
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import SnowThreat
from rdc_bench.threats.lp import linf
from rdc_bench.threats.snow import flakes_of, random_streaks, snow, within_budget


@attack("snow", threats=["snow"])
def adversarial_snow(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: SnowThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """Signed gradient ascent on the intensities of snowflakes, from random ones; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: of the intensities, which span [0, 1]; 0 means 1 / √steps, as in the paper.
        loss: ce, margin or dlr. eot: draws of the model's randomness averaged per step.
        restarts: independent random starts, each with streaks of its own.
    """
    best = Best(model, x)
    for _ in range(restarts):
        streaks = random_streaks(len(x), generators)

        def snowed(centred: Tensor, streaks: Tensor = streaks) -> Tensor:
            return x + threat.eps * snow(within_budget(centred + 0.5), streaks, x.shape[2:])

        ascend(
            model,
            x,
            y,
            linf(0.5),  # of intensities about the middle of their range
            flakes_of(x.shape),
            snowed,
            generators=generators,
            allowed=lambda bright: bright.clamp(0, 1),
            usable=inward,
            objective=objective(loss),
            steps=steps,
            step_size=step_size or 1 / math.sqrt(steps),
            eot=eot,
            restarts=1,
            best=best,
        )
    return best.points
