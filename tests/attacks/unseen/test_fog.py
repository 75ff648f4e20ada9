from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import FogThreat
from rdc_bench.threats.fog import blend, cloud


def test_no_random_cloud_comes_near_the_one_that_is_found(attacked: Any) -> None:
    weight = torch.randn(1, 14, 14, generator=generator("weight"))

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = (x * weight).sum(dim=(1, 2, 3))
            return torch.stack([-score, score], dim=1)

    model, threat = Linear(), FogThreat(0.5)
    x = torch.rand(1, 1, 14, 14, generator=generator("image"))
    clouds = cloud(2 * torch.rand(500, 16, 16, generator=generator("clouds")) - 1)
    chance = model(blend(x.expand(500, -1, -1, -1), clouds, threat.eps))[:, 1]
    found = model(attacked("fog", model, x, torch.tensor([0]), threat, steps=30, eot=1))[0, 1]
    # The most that any fog could gain is its weight wherever the model likes brightness.
    share = threat.eps / (x.max() + threat.eps)
    most = ((1 - share) * x * weight).sum() + share * x.max() * weight.clamp_min(0).sum()
    start = model(x)[0, 1]
    assert chance.max() < found <= most + 1e-4
    assert found - chance.mean() > 2 * (chance.max() - chance.mean())
    assert found > start
