"""What an attack costs and how close it comes to the best: the measures of the attack benchmark.

Network evaluations are counted inside the model, forward and backward, so that a classifier of 28 passes costs 28. Optimality
is AttackBench's (Cinà et al. 2024, arXiv 2404.19460): areas under curves, relative to the best that any attack found for each
image.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from rdc_bench.evaluation.metering import Meter, metered
from rdc_bench.threats import Threat


@dataclass
class Cost:
    """Network evaluations per image of an attack.

    Attributes: meter: all that were made. spent: (n,), those made on each image until it was first misclassified inside the
        threat set, for a deterministic model that is always shown whole batches. None where that cannot be told.
    """

    meter: Meter
    images: int
    spent: Tensor | None = None
    fooled: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def per_image(self) -> float:
        """Mean evaluations; an attack need not go on with an image that a deterministic model gets wrong."""
        if self.spent is not None:
            return float(self.spent.mean())
        return (self.meter.forward + self.meter.backward) / self.images


@contextlib.contextmanager
def costing(model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Iterator[Cost]:
    """Count what is spent on ``x`` (n, C, H, W) inside the block."""
    with metered(model) as meter:
        cost = Cost(meter, len(x))
        if not getattr(model, "stochastic", False):
            cost.spent, cost.fooled = torch.zeros(len(x)), torch.zeros(len(x), dtype=torch.bool)

        def watch(_module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> None:
            copies, rest = divmod(len(logits), len(x))
            if rest or copies == 0:
                cost.spent = None  # the attack has dropped images: its evaluations are counted all the same
            if cost.spent is None:
                return
            shown = args[0].detach()
            wrong = (logits.detach().argmax(dim=1) != y.repeat(copies)) & threat.contains(x.repeat(copies, 1, 1, 1), shown)
            cost.spent += torch.where(cost.fooled, 0, copies * (1 + int(logits.requires_grad)))
            cost.fooled |= wrong.unflatten(0, (copies, -1)).any(dim=0)

        hook = model.register_forward_hook(watch)
        try:
            yield cost
        finally:
            hook.remove()


def area(at: Sequence[float], values: Sequence[float], start: float, low: float, high: float) -> float:
    """Area from low to high under the step function that is ``start`` at first and then the lowest of the values so far."""
    total, here, value = 0.0, low, start
    for place, next_value in sorted(zip(at, values, strict=True)):
        place = min(max(place, low), high)
        total += (place - here) * value
        here, value = place, min(value, next_value)
    return total + (high - here) * value


def security_area(distances: np.ndarray, largest: float) -> float:
    """Area under the share of images whose nearest adversarial image is farther than ε, for ε from 0 to ``largest``."""
    return float(np.clip(distances, 0, largest).mean())


def optimality(of_attack: float, of_best: float, of_none: float) -> float:
    """``1 − (A_attack − A_best)/(A_none − A_best)``: 1 for the best at every image, 0 for no attack at all."""
    return 1.0 if math.isclose(of_none, of_best) else 1 - (of_attack - of_best) / (of_none - of_best)
