"""Projected gradient ascent on the parameters of a transformation, which the attacks beyond the ℓp balls share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import Objective
from rdc_bench.threats import LpThreat


def ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: LpThreat,
    shape: Sequence[int],
    transform: Callable[[Tensor], Tensor],
    *,
    generators: Sequence[torch.Generator],
    allowed: Callable[[Tensor], Tensor],
    objective: Objective,
    steps: int,
    step_size: float,
    eot: int,
    restarts: int,
    best: Best | None = None,
    usable: Callable[[Tensor, Tensor], Tensor] = lambda transformed, gradient: gradient,
) -> Tensor:
    """The most adversarial of the images that steepest ascent within ``ball`` visits from random starts.

    Args:
        ball: around zero, which the parameters of each image stay in. shape: of one image's parameters.
        transform: parameters (B, *shape) to images like ``x``; differentiable.
        allowed: transformed images to images that may be returned; the gradient is taken as if it changed nothing.
        usable: the part of the gradient at the transformed images that a change of the parameters can follow.
        steps: per restart. step_size: in the parameters' unit. eot: draws of the model's randomness averaged per step.
        best: what earlier searches found, to which this one adds.
    """
    best = best or Best(model, x)
    for _ in range(restarts):
        parameters = ball.eps * ball.uniform((len(x), *shape), generators).to(x)
        for i in range(steps + 1):
            if best.complete:
                return best.points
            parameters.requires_grad_(True)
            with torch.enable_grad():
                transformed = transform(parameters)
            adversarial = allowed(transformed.detach())
            value, gradient, logits = evaluate(model, adversarial, y, objective, eot)
            best.offer(adversarial, value, logits, y)
            if i < steps:
                (uphill,) = torch.autograd.grad(transformed, parameters, usable(transformed.detach(), gradient))
                parameters = parameters.detach()
                parameters = ball.within(parameters + step_size * ball.steepest(uphill, parameters))
    return best.points


def inward(changed: Tensor, gradient: Tensor) -> Tensor:
    """The part of ``gradient`` at images that will be clipped to [0, 1] which does not push a pixel further out."""
    stuck = ((changed < 0) & (gradient < 0)) | ((changed > 1) & (gradient > 0))
    return gradient.masked_fill(stuck, 0)
