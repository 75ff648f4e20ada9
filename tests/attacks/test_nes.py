"""Gradients from logits alone: unbiased on a linear model, blind to a backward pass that lies, and per image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks.nes import _Estimated, nes
from rdc_bench.randomness import draws_for, generator, normal, row_keys
from rdc_bench.threats import make_threat
from rdc_bench.threats.lp import linf


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight[: x[0].numel()]


class Cut(Linear):
    """Without any gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


def images(n: int = 4) -> Tensor:
    return 0.25 + 0.5 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_the_estimate_is_that_of_a_linear_model_on_average() -> None:
    model, x = Linear(), images()
    weights = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(3))
    estimated = _Estimated(model, [generator("nes", i) for i in range(len(x))], pairs=20_000, sigma=0.02).estimate(x, weights)
    exact = (weights @ model.weight.T).view_as(x)
    cosine = torch.cosine_similarity(estimated.flatten(1), exact.flatten(1), dim=1)
    assert (cosine > 0.99).all()
    torch.testing.assert_close(estimated.flatten(1).norm(dim=1), exact.flatten(1).norm(dim=1), rtol=0.03, atol=0)


def test_it_breaks_a_model_that_has_no_gradient() -> None:
    model, x = Cut(), images()
    logits = model(x)
    y = logits.argmax(dim=1)
    top = logits.topk(2, dim=1)
    needed = (top.values[:, 0] - top.values[:, 1]) / (
        (model.weight[:, top.indices[:, 0]] - model.weight[:, top.indices[:, 1]]).abs().sum(dim=0)
    )
    threat = linf(float(2 * needed.detach().max()))
    found = nes.function(model, x, y, threat, generators=[generator("nes", i) for i in range(len(x))], steps=10)
    assert (model(found).argmax(dim=1) != y).all()
    assert threat.contains(x, found).all()


@pytest.mark.parametrize("name", ["stadv", "elastic", "jpeg-linf"])
def test_results_are_allowed_and_of_the_image_alone(name: str) -> None:
    threat, _ = make_threat(name, None, (1, 8, 8))
    model, x = Cut(), images()
    y = model(x).argmax(dim=1)
    together = nes.function(model, x, y, threat, generators=[generator("nes", i) for i in range(4)], steps=3, pairs=4)
    assert threat.contains(x, together).all()
    alone = nes.function(model, x[2:3], y[2:3], threat, generators=[generator("nes", 2)], steps=3, pairs=4)
    torch.testing.assert_close(alone[0], together[2], atol=1e-5, rtol=0)


class Random(Linear):
    """With noise on its logits."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + normal(row_keys(len(x)), (4,))


@pytest.mark.parametrize("model", [Linear(), Random()], ids=["deterministic", "random"])
def test_an_estimate_does_not_depend_on_how_many_images_are_with_it(model: nn.Module) -> None:
    x, weights = images(70)[:, :, :3, :5], torch.ones(70, 4)

    def estimated(rows: list[int]) -> Tensor:
        with torch.no_grad(), draws_for([("image", i) for i in rows]):
            return _Estimated(model, [generator("nes", i) for i in rows], 9, 0.02).estimate(x[rows], weights[rows])

    torch.testing.assert_close(estimated([69])[0], estimated(list(range(70)))[69], atol=1e-2, rtol=1e-3)
