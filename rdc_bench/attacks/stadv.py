"""Spatially transformed adversarial examples (Xiao et al. 2018, arXiv 1801.02612)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count, NonNegative, Positive
from rdc_bench.threats import StAdvThreat
from rdc_bench.threats.lp import linf
from rdc_bench.threats.stadv import warp

#: Size of the random initial flow, as a share of eps.
INITIAL_SHARE = 0.01


@attack("stadv", threats=["stadv"])
def stadv(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: StAdvThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    learning_rate: Positive = 0.01,
    tau: NonNegative = 0.05,
    eot: Count = 1,
) -> Tensor:
    """StAdv: one bounded flow vector per pixel, found by Adam on the margin and the flow's roughness (Xiao et al. 2018).

    The paper minimises the flow without a bound by L-BFGS; the bound and Adam follow Laidlaw et al. 2021 (arXiv 2006.12655).
    The two gradients are scaled to unit norm per image before they are weighted: otherwise the roughness outweighs the margin
    of a model with small logits, which then looks robust.

    Options:
        steps: Adam steps. learning_rate: in ``grid_sample`` coordinates. tau: weight of the roughness against the margin.
        eot: draws of the model's randomness averaged per step.
    """
    flow = linf(threat.eps).uniform((len(x), *x.shape[2:], 2), generators).to(x)
    flow = (INITIAL_SHARE * threat.eps * flow).requires_grad_(True)
    optimizer = torch.optim.Adam([flow], lr=learning_rate)
    best = Best(model, x)
    for step in range(steps + 1):
        with torch.enable_grad():
            moved = warp(x, flow)
            rough = roughness(flow).sum()
        # The projection mends rounding only, so that what is judged here is exactly what is returned.
        adversarial = threat.project(x, moved.detach())
        value, gradient, logits = evaluate(model, adversarial, y, margin, eot)
        best.offer(adversarial, value, logits, y)
        if step == steps or best.complete:
            break
        (uphill,) = torch.autograd.grad(moved, flow, gradient)
        (rougher,) = torch.autograd.grad(rough, flow)
        flow.grad = tau * _unit(rougher) - _unit(uphill)
        optimizer.step()
        with torch.no_grad():
            flow.clamp_(-threat.eps, threat.eps)
    return best.points


def roughness(flow: Tensor) -> Tensor:
    """``Σ_p Σ_{q ∈ N(p)} ‖f_p − f_q‖₂`` per image (B,), over the four neighbours of every pixel (Xiao et al. 2018, eq. 3)."""
    vertical = (flow[:, 1:] - flow[:, :-1]).norm(dim=-1).sum(dim=(1, 2))
    horizontal = (flow[:, :, 1:] - flow[:, :, :-1]).norm(dim=-1).sum(dim=(1, 2))
    return 2 * (vertical + horizontal)


def _unit(gradient: Tensor) -> Tensor:
    norm = gradient.flatten(1).double().norm(dim=1).clamp_min(1e-60)  # squares of small gradients underflow in float32
    return (gradient / norm[:, None, None, None]).to(gradient)
