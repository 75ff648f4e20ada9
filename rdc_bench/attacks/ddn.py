"""Decoupled direction and norm, from the library ``foolbox``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.options import Count, Positive, Rate
from rdc_bench.threats import LpThreat


@attack("ddn", threats=["l2"], needs="foolbox:DDNAttack", minimum_norm=True)
def ddn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    init_epsilon: Positive = 1.0,
    gamma: Rate = 0.05,
) -> Tensor:
    """Decoupled direction and norm, which seeks the nearest adversarial image (Rony et al. 2019, arXiv 1811.09600).

    What it finds beyond ε is drawn back to the ball, where it is mostly no longer adversarial. It draws nothing at random, and
    takes one lucky draw of a randomised model for success.

    Options:
        steps: of gradient descent. init_epsilon: norm to start from. gamma: relative change of the norm per step.
    """
    from rdc_bench.attacks.adapters import LIBRARIES, attack_in_library

    foolbox = LIBRARIES["foolbox"]
    options = {"steps": steps, "init_epsilon": init_epsilon, "gamma": gamma}
    return attack_in_library(foolbox, foolbox.classes()["DDNAttack"], model, x, y, threat, options, seed=0)
