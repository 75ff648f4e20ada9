"""The momentum iterative method, as a plugin that rdc-bench finds once it is installed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench import attack
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, Share
from rdc_bench.threats import LpThreat


@attack("mi-fgsm", threats=["linf"])
def mi_fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 10,
    decay: Share = 1.0,
    loss: Loss = "margin",
    eot: Count = 1,
) -> Tensor:
    """Momentum iterative FGSM (Dong et al. 2018, arXiv 1710.06081).

    Options:
        steps: of eps / steps each. decay: share of the momentum that stays after a step. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step.
    """
    momentum = torch.zeros_like(x)
    adversarial = x
    for _ in range(steps):
        gradient = evaluate(model, adversarial, y, objective(loss), eot).gradient
        size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        momentum = decay * momentum + gradient / size
        adversarial = threat.project(x, adversarial + threat.eps / steps * momentum.sign())
    return adversarial
