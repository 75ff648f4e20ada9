"""PGD on changes of low frequency (Guo, Frank & Weinberger 2019, arXiv 1809.08758)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend, inward
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import LowFrequencyThreat, LpThreat
from rdc_bench.threats.low_frequency import enlarge, kept, low_pass, within


class LowFrequencyBall(LpThreat):
    """The changes of low frequencies within ε, as the ascent needs them."""

    def __init__(self, eps: float) -> None:
        super().__init__("linf", eps)

    def within(self, delta: Tensor) -> Tensor:
        """See :func:`rdc_bench.threats.low_frequency.within`."""
        return within(delta, self.eps)

    def uniform(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Small images of uniform values, enlarged, and brought within the unit ball."""
        small = super().uniform((*shape[:2], *map(kept, shape[2:])), generators)
        return within(enlarge(small, shape[2:]), 1.0)

    def steepest(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The low frequencies of the gradient, of greatest magnitude 1."""
        low = low_pass(gradient)
        return low / low.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(torch.finfo(low.dtype).tiny)


@attack("low-frequency", threats=["low-frequency"])
def low_frequency(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LowFrequencyThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """PGD on changes of low frequencies from random starts, with EOT; keeps the most adversarial iterate.

    Options:
        steps: per restart. step_size: the most that a step moves a pixel; 0 means 10 eps / steps. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    return ascend(
        model,
        x,
        y,
        LowFrequencyBall(threat.eps),
        x.shape[1:],
        lambda change: x + change,
        generators=generators,
        allowed=lambda changed: changed.clamp(0, 1),
        usable=inward,
        objective=objective(loss),
        steps=steps,
        step_size=step_size or 10 * threat.eps / steps,
        eot=eot,
        restarts=restarts,
    )
