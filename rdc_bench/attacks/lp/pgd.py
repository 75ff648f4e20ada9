"""Projected gradient descent and its one-step form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import NEUTRAL, Noise, attacked_as, evaluate
from rdc_bench.attacks.losses import cross_entropy, objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.defenses.likelihood_maximization import Gradient
from rdc_bench.threats import LpThreat


@attack("fgsm", threats=["linf", "l2"])
def fgsm(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generators: Sequence[torch.Generator], eot: Count = 1
) -> Tensor:
    """Fast gradient (sign) method, one step of size eps (Goodfellow et al. 2015, arXiv 1412.6572).

    Options:
        eot: draws of the model's randomness averaged for the gradient.
    """
    gradient = evaluate(model, x, y, cross_entropy, eot).gradient
    return threat.project(x, x + threat.eps * threat.steepest(gradient, x))


@attack("pgd", threats=["linf", "l2", "l1"], neutral=NEUTRAL)
def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 20,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
    gradient: Gradient = "exact",
    noise: Noise = "fresh",
) -> Tensor:
    """PGD with random starts and EOT (Madry et al. 2018, arXiv 1706.06083); keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: 0 means 2.5 eps / steps. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
        gradient: exact, bpda or surrogate, where the model leaves the choice.
        noise: of a randomised model, fresh at each step or common to all.
    """
    loss_function = objective(loss)
    step = step_size or 2.5 * threat.eps / steps
    best = Best(model, x)
    with attacked_as(model, len(x), gradient, noise) as seen:
        for _ in range(restarts):
            adversarial = threat.random_start(x, generators)
            for i in range(steps + 1):
                value, uphill, logits = evaluate(seen, adversarial, y, loss_function, eot)
                best.offer(adversarial, value, logits, y)
                if i < steps:
                    adversarial = threat.project(x, adversarial + step * threat.steepest(uphill, x))
    return best.points
