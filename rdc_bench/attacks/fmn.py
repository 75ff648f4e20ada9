"""Fast minimum-norm attack (Pintor et al. 2021, arXiv 2102.12827): the nearest adversarial image by gradient alone.

The point moves downhill on the margin ``L = f_y − max_{j≠y} f_j`` within a ball around the image, and the ball adapts: it
grows by the factor ``1 + γ`` while the point is classified correctly and shrinks by ``1 − γ`` when it is not. Both γ and the
steps are annealed, so that the ball closes on the nearest point of the decision boundary. Until a first adversarial point is
found, the radius is the first-order distance to the boundary, ``‖δ‖_p + L/‖∇L‖_q`` with the dual norm q, and growing likewise.

Deviations from the paper: the first-order radius grows by ``1 + γ`` too, because it may end on the boundary; steps under ℓ∞ go
along the sign of the gradient; all steps are measured in radii, so that one setting serves all norms and image sizes; and the
ball never grows beyond the threat's ε.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count, Positive, Rate
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import project_l1

#: Order of the dual norm, 1/p + 1/q = 1.
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
#: What γ and the steps end at, as a share of what they start from.
ANNEALED = 0.01
#: How far beyond the boundary counts, as a share of the clean margin: rounding in another batch must not undo it.
BEYOND = 1e-5


@attack("fmn", threats=["linf", "l2", "l1"], minimum_norm=True)
def fmn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    step_size: Positive = 1.0,
    gamma: Rate = 0.05,
    eot: Count = 10,
) -> Tensor:
    """Fast minimum-norm attack, which seeks the nearest adversarial image (Pintor et al. 2021, arXiv 2102.12827).

    Where it finds none within ε it returns the point of largest margin. It draws nothing at random.

    Options:
        steps: points visited after the first. step_size: first step, in radii of the ball.
        gamma: first relative change of the radius.
        eot: draws of the model's randomness, 1 on deterministic models; a point whose mean logits are wrong is adversarial.
    """
    draws = eot if getattr(model, "stochastic", False) else 1
    direction = LpThreat("linf" if threat.norm == "linf" else "l2", threat.eps)
    point = nearest = deepest = x
    distance = torch.full_like(x[:, 0, 0, 0], torch.inf)
    deepest_value = torch.full_like(distance, -torch.inf)
    radius = torch.full_like(distance, threat.eps)
    for step in range(steps + 1):
        value, uphill, logits = evaluate(model, point, y, margin, draws)
        if step == 0:
            least = BEYOND * value.abs()
        adversarial = margin(logits, y) > least
        norm = threat.distance(x, point).to(distance)
        nearer = adversarial & (norm < distance)
        nearest, distance = _where(nearer, point, nearest), torch.where(nearer, norm, distance)
        deeper = value > deepest_value
        deepest, deepest_value = _where(deeper, point, deepest), torch.where(deeper, value, deepest_value)
        annealed = ANNEALED + (1 - ANNEALED) * (1 + math.cos(math.pi * step / steps)) / 2
        to_boundary = norm - value / uphill.flatten(1).norm(p=DUAL[threat.norm], dim=1)
        # Of a linear model the first-order radius ends on the boundary, not beyond it; it grows like any other.
        grown = torch.where(distance.isinf(), to_boundary, radius) * (1 + annealed * gamma)
        radius = torch.where(adversarial, torch.minimum(radius * (1 - annealed * gamma), distance), grown)
        radius = radius.nan_to_num(nan=threat.eps).clamp(max=threat.eps)
        stride = (annealed * step_size * radius)[:, None, None, None]
        point = _into_balls(threat, x, point - x + stride * direction.steepest(uphill, x), radius)
    return _where(distance.isfinite(), nearest, deepest)


def _into_balls(threat: LpThreat, x: Tensor, delta: Tensor, radius: Tensor) -> Tensor:
    """``x + delta`` drawn into a ball around each image, of a radius of its own (B,), and into [0, 1]."""
    if threat.norm == "l1":
        delta = project_l1(delta, x, radius[:, None].double())
    elif threat.norm == "l2":
        norm = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
        delta = delta * (radius / norm).clamp(max=1)[:, None, None, None]
    else:
        delta = delta.clamp(-radius[:, None, None, None], radius[:, None, None, None])
    return (x + delta).clamp(0, 1)


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition[:, None, None, None], yes, no)
