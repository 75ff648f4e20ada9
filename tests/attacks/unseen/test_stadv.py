from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.unseen.stadv import roughness
from rdc_bench.threats import StAdvThreat


def test_roughness_is_the_papers_sum_over_pixels_and_neighbours() -> None:
    flow = torch.randn(2, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2)
    for i, j in itertools.product(range(4), range(5)):
        for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= p < 4 and 0 <= q < 5:
                expected += (flow[:, i, j] - flow[:, p, q]).norm(dim=-1)
    torch.testing.assert_close(roughness(flow), expected)


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (3, 3, 32, 32)])
def test_strong_flows_stay_in_the_set(shape: tuple[int, ...], attacked: Any) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=g)
    weight = torch.randn(x[0].numel(), 10, generator=g)

    class Model(nn.Module):
        stochastic = True  # no early end: let the flow run into its bounds

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ weight

    model = Model()
    y = model(x).argmax(dim=1)
    threat = StAdvThreat(0.05)
    adversarial = attacked("stadv", model, x, y, threat, steps=40, eot=1)
    assert threat.contains(x, adversarial).all()
    assert (margin(model(adversarial), y) > margin(model(x), y) + 1).all()


def test_the_scale_of_the_logits_does_not_matter(trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any) -> None:
    class Scaled(nn.Module):
        stochastic = True

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.net, self.scale = trained, scale

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * self.scale

    x, y = held_out
    found = [attacked("stadv", Scaled(scale), x, y, StAdvThreat(0.05), steps=30, eot=1) for scale in (1.0, 2.0**-12)]
    margins = [margin(trained(adversarial), y) for adversarial in found]
    torch.testing.assert_close(*margins, atol=0.05, rtol=0.05)
