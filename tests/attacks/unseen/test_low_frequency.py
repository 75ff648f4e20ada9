from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import fft
from scipy.optimize import linprog
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import LowFrequencyThreat


def test_the_optimum_of_a_linear_model_is_reached_nearly(attacked: Any) -> None:
    weight = torch.randn(1, 12, 12, generator=generator("weight"))

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = (x * weight).sum(dim=(1, 2, 3))
            return torch.stack([-score, score], dim=1)

    eps, x = 0.1, torch.full((1, 1, 12, 12), 0.5)
    units = np.zeros((9, 12, 12))
    for i in range(9):
        units[i, i // 3, i % 3] = 1
    patterns = fft.idctn(units, axes=(1, 2), norm="ortho").reshape(9, -1)
    bounded = np.hstack([patterns, -patterns]).T
    optimum = -linprog(-patterns @ weight.flatten().numpy(), A_ub=bounded, b_ub=np.full(288, eps), bounds=(None, None)).fun
    model = Linear()
    found = attacked("low-frequency", model, x, torch.tensor([0]), LowFrequencyThreat(eps), steps=50, eot=1)
    gain = (model(found) - model(x))[0, 1]
    assert 0.93 * optimum < gain < optimum * (1 + 1e-4)
