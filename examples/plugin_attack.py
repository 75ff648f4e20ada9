"""An attack of one's own in one file: ``rdc-bench run --plugin examples/plugin_attack.py --attack random-corners ...``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rdc_bench import attack
from rdc_bench.attacks.options import Count
from rdc_bench.threats import LpThreat


@attack("random-corners", threats=["linf"], gradient="black-box")
def random_corners(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generator: torch.Generator, tries: Count = 50
) -> Tensor:
    """Random corners of the ℓ∞ ball, of which the one with the least logit of the true class against the rest is kept.

    Options:
        tries: corners.
    """
    corners = [threat.eps * (2 * torch.randint(2, x.shape, generator=generator) - 1).to(x) for _ in range(tries)]
    points = [threat.project(x, x + corner) for corner in corners]
    with torch.no_grad():
        confidences = [float(model(point).softmax(dim=1)[0, y[0]]) for point in points]
    return points[confidences.index(min(confidences))]
