"""Adversarial Gabor noise (Kang et al. 2019, arXiv 1908.08016)."""

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
from rdc_bench.threats import GaborThreat
from rdc_bench.threats.gabor import noise, random_kernels, random_places
from rdc_bench.threats.lp import linf


@attack("gabor", threats=["gabor"])
def gabor(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: GaborThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """Signed gradient ascent on the weights of Gabor kernels at few places, from random weights; keeps the best iterate.

    Options:
        steps: per restart. step_size: of the weights, which span [−1, 1]; 0 means 1 / √steps, as in the paper.
        loss: ce, margin or dlr. eot: draws of the model's randomness averaged per step.
        restarts: independent random starts, each with a kernel and places of its own.
    """
    best = Best(model, x)
    for _ in range(restarts):
        kernels, places = random_kernels(len(x), generators), random_places(x.shape, generators).to(x)

        def noisy(weights: Tensor, kernels: Tensor = kernels, places: Tensor = places) -> Tensor:
            return x + threat.eps * noise(weights * places, kernels)

        ascend(
            model,
            x,
            y,
            linf(1.0),
            x.shape[2:],
            noisy,
            generators=generators,
            allowed=lambda changed: changed.clamp(0, 1),
            usable=inward,
            objective=objective(loss),
            steps=steps,
            step_size=step_size or 1 / math.sqrt(steps),
            eot=eot,
            restarts=1,
            best=best,
        )
    return best.points
