from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import LpThreat


def test_on_a_linear_model_it_reaches_the_optimum_within_the_box(attacked: Any) -> None:
    g = generator("linear")
    x = (1.6 * torch.rand(3, 1, 12, 12, generator=g) - 0.3).clamp(0, 1)
    weight = torch.randn(144, generator=g)

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = x.flatten(1) @ weight
            return torch.stack([-score, score], dim=1)

    eps = 5.0
    found = attacked("apgd-l1", Linear(), x, torch.zeros(3, dtype=torch.long), LpThreat("l1", eps), steps=100, eot=1)
    for image, adversarial in zip(x.flatten(1), found.flatten(1), strict=True):
        # The optimum spends ε on the heaviest pixels first, each as far as the range lets it go.
        room = torch.where(weight > 0, 1 - image, image)
        order = weight.abs().argsort(descending=True)
        spent_before = room[order].cumsum(0) - room[order]
        optimum = (weight.abs()[order] * (eps - spent_before).clamp_min(0).minimum(room[order])).sum()
        gained = (weight * (adversarial - image)).sum()
        assert 0.98 * optimum < gained < optimum + 1e-4
