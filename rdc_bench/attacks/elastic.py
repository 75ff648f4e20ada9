"""Elastic attack (Kang et al. 2019, arXiv 1908.08016)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.threats import ElasticThreat
from rdc_bench.threats.elastic import smooth
from rdc_bench.threats.stadv import warp


@attack("elastic", threats=["elastic"])
def elastic(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ElasticThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: int = 50,
    step_size: float = 0.0,
    loss: str = "margin",
    eot: int = 1,
    restarts: int = 1,
) -> Tensor:
    """Signed gradient ascent on the flow before smoothing, from random starts, with EOT; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: 0 means eps / √steps, as in the paper. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    loss_function = objective(loss)
    step = step_size or threat.eps / math.sqrt(steps)
    best = Best(model, x)
    for _ in range(restarts):
        flow = threat.eps * torch.stack([2 * torch.rand(*x.shape[2:], 2, generator=g) - 1 for g in generators]).to(x)
        for i in range(steps + 1):
            if best.complete:
                return best.points
            flow.requires_grad_(True)
            with torch.enable_grad():
                moved = warp(x, smooth(flow))
            # Interpolation errs out of the range by rounding only.
            adversarial = moved.detach().clamp(0, 1)
            value, gradient, logits = evaluate(model, adversarial, y, loss_function, eot)
            best.offer(adversarial, value, logits, y)
            if i < steps:
                (uphill,) = torch.autograd.grad(moved, flow, gradient)
                flow = (flow.detach() + step * uphill.sign()).clamp(-threat.eps, threat.eps)
    return best.points
