"""The selective attack, where the mean gradient leads astray, where it does not, and where there is no randomness."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import draws_for, generator, normal, row_keys, uniform
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import Norm

EPS = {"linf": 0.1, "l2": 0.6}


class TwoGroups(nn.Module):
    """In 60 % of its draws the model is broken by a step along ``w``. In the others it is beyond reach, but its margin falls
    steeply against ``w``, so that the mean gradient points there."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.randn(36, generator=generator("w")).sign() / 36)

    def forward(self, x: Tensor) -> Tensor:
        keys = row_keys(len(x))
        along = (x - 0.5).flatten(1) @ self.w  # within ±ε under ℓ∞
        jitter = 0.1 * normal(keys, ())
        breakable = 10 * along - 0.4 + 0.2 * jitter
        hopeless = -40 * along - 30 + jitter
        score = torch.where(uniform([(*key, "group") for key in keys]) < 0.6, breakable, hopeless)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def fooled(model: nn.Module, x: Tensor, y: Tensor, draws: int = 200) -> Tensor:
    with draws_for([("judge", i) for i in range(len(x))]), torch.no_grad():
        return (model(x.repeat(draws, 1, 1, 1)).argmax(dim=1) != y.repeat(draws)).unflatten(0, (draws, -1)).double().mean(dim=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_breaks_the_draws_that_the_mean_gradient_leaves_alone(norm: Norm, attacked: Callable[..., Tensor]) -> None:
    model, threat = TwoGroups(), LpThreat(norm, EPS[norm])
    x, y = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.long)
    averaged = attacked("pgd", model, x, y, threat, steps=20, eot=24)
    selected = attacked("selective", model, x, y, threat, steps=20, draws=16, chosen=8)
    assert (fooled(model, averaged, y) < 0.1).all()
    assert (fooled(model, selected, y) > 0.5).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_as_strong_as_averaging_where_draws_agree(
    norm: Norm, noisy: nn.Module, images: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = images[0][900:930], images[1][900:930]
    threat = LpThreat(norm, {"linf": 0.03, "l2": 0.25}[norm])
    averaged = fooled(noisy, attacked("pgd", noisy, x, y, threat, steps=15, eot=8), y).mean()
    selected = fooled(noisy, attacked("selective", noisy, x, y, threat, steps=15, draws=12, chosen=6), y).mean()
    assert averaged > fooled(noisy, x, y).mean() + 0.1
    assert selected >= averaged - 0.03


def test_is_pgd_on_a_deterministic_model(trained: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out
    found = {}
    for name in ("pgd", "selective"):
        generators = [generator("attack", i) for i in range(len(x))]
        found[name] = ATTACKS.get(name).function(trained, x, y, LpThreat("l2", 0.3), generators=generators, steps=10)
    assert torch.equal(found["pgd"], found["selective"])
