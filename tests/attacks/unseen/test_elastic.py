from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.threats import ElasticThreat


def test_a_shift_that_is_the_best_flow_is_found(attacked: Any) -> None:
    """On a slope, reading further up it makes every pixel brighter: the best flow is constant, and smoothing leaves it so."""
    slope = torch.linspace(0.2, 0.8, 15).expand(1, 1, 15, 15)

    class Brightness(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            bright = x.mean(dim=(1, 2, 3))
            return torch.stack([-bright, bright], dim=1)

    eps = 0.2
    found = attacked("elastic", Brightness(), slope, torch.tensor([0]), ElasticThreat(eps), steps=60, eot=1)
    expected = (slope + 0.3 * eps).clamp(max=0.8)  # the slope is 0.3 per unit of the flow's coordinates
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
