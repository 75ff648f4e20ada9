"""Projected gradient descent on JPEG coefficients (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
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
    steps: int = 50,
    step_size: float = 0.0,
    loss: str = "margin",
    eot: int = 1,
    restarts: int = 1,
) -> Tensor:
    """PGD on the quantised DCT coefficients from random starts, with EOT; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: in quantisation steps; 0 means eps / √steps, as in the paper. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    loss_function = objective(loss)
    step = step_size or threat.eps / math.sqrt(steps)
    shape = coefficients(x).shape
    best = Best(model, x)
    for _ in range(restarts):
        perturbation = threat.eps * threat.ball.uniform(shape, generators).to(x)
        for i in range(steps + 1):
            if best.complete:
                return best.points
            perturbation.requires_grad_(True)
            with torch.enable_grad():
                changed = x + change_of(perturbation, x.shape[2:])
            adversarial = changed.detach().clamp(0, 1)
            value, gradient, logits = evaluate(model, adversarial, y, loss_function, eot)
            best.offer(adversarial, value, logits, y)
            if i < steps:
                # Where a pixel is clipped and would be pushed further out, the coefficients gain nothing from it.
                stuck = ((changed < 0) & (gradient < 0)) | ((changed > 1) & (gradient > 0))
                (uphill,) = torch.autograd.grad(changed, perturbation, gradient.masked_fill(stuck, 0))
                perturbation = perturbation.detach()
                perturbation = threat.ball.within(perturbation + step * threat.ball.steepest(uphill, perturbation))
    return best.points
