from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import GaborThreat
from rdc_bench.threats.gabor import noise, random_kernels, random_places


def test_no_random_noise_comes_near_what_is_found(attacked: Any) -> None:
    weight = torch.randn(1, 20, 20, generator=generator("weight"))

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = (x * weight).sum(dim=(1, 2, 3))
            return torch.stack([-score, score], dim=1)

    model, threat = Linear(), GaborThreat(0.1)
    x = torch.full((1, 1, 20, 20), 0.5)
    generators = [generator("noise", i) for i in range(300)]
    weights = 2 * torch.rand(300, 20, 20, generator=generator("weights")) - 1
    random = noise(weights * random_places((300, *x.shape[1:]), generators), random_kernels(300, generators))
    chance = model(x + threat.eps * random)[:, 1]
    found = attacked("gabor", model, x, torch.tensor([0]), threat, steps=40, restarts=2, eot=1)
    score = model(found)[0, 1]
    assert score > chance.max()
    assert score <= model(x + threat.eps * weight.sign())[0, 1]
    # The noise is scaled to its full magnitude.
    torch.testing.assert_close((found - x).abs().max(), torch.tensor(threat.eps))
