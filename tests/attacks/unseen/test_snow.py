from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator
from rdc_bench.threats import SnowThreat
from rdc_bench.threats.snow import flakes_of, random_streaks, snow, within_budget


def test_no_random_snow_comes_near_what_is_found(attacked: Any) -> None:
    weight = torch.randn(1, 16, 16, generator=generator("weight"))

    class Linear(nn.Module):
        stochastic = True  # no early end

        def forward(self, x: Tensor) -> Tensor:
            score = (x * weight).sum(dim=(1, 2, 3))
            return torch.stack([-score, score], dim=1)

    model, threat, size = Linear(), SnowThreat(0.3), (16, 16)
    x = torch.full((1, 1, *size), 0.5)
    streaks = random_streaks(300, [generator("streaks", i) for i in range(300)])
    # As many full flakes as the budget allows, at random places, shine more than any other random snow.
    flakes = (torch.rand(300, *flakes_of(size), generator=generator("flakes")) < 0.2).float()
    chance = model(x + threat.eps * snow(within_budget(flakes), streaks, size))[:, 1]
    found = attacked("snow", model, x, torch.tensor([0]), threat, steps=40, eot=1)
    score = model(found)[0, 1]
    assert score > chance.max() > model(x)[0, 1]
    # Nor do the flakes that gain most one by one, as far as the budget goes, although they are the best where none overlap.
    own = random_streaks(1, [generator("attack", 0)])
    one_flake = torch.eye(7 * 16).view(-1, *flakes_of(size))
    gain = (snow(one_flake, own.expand(7 * 16, -1, -1, -1), size) * weight).sum(dim=(1, 2, 3)).view(7, 16)
    chosen = (gain > gain.sort(dim=1, descending=True).values[:, 3:4]).float().view(1, *flakes_of(size))
    assert torch.equal(within_budget(chosen), chosen)
    assert score > model(x + threat.eps * snow(chosen, own, size))[0, 1]
    assert score <= model(x + threat.eps * (weight > 0))[0, 1]
    assert (found - x).min() >= 0
