from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import PatchThreat


@pytest.mark.parametrize("channels", [1, 3])
def test_the_best_patch_of_all_is_found_on_a_linear_model(channels: int, attacked: Any) -> None:
    weight = torch.randn(channels, 9, 12, generator=generator("weight", channels))

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = (x * weight).sum(dim=(1, 2, 3))
            return torch.stack([-score, score], dim=1)

    model, threat = Linear(), PatchThreat(1 / 3)
    x = torch.rand(2, channels, 9, 12, generator=generator("images", channels))
    bright = (weight > 0).float()
    scores = []
    for row in range(7):
        for column in range(10):
            patched = x.clone()
            patched[:, :, row : row + 3, column : column + 3] = bright[:, row : row + 3, column : column + 3]
            scores.append(model(patched)[:, 1])
    found = attacked("patch", model, x, torch.tensor([0, 0]), threat, eot=1)
    torch.testing.assert_close(model(found)[:, 1], torch.stack(scores).amax(dim=0))
