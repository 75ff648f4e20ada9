"""The Square attack on averaged losses: known optima, the library's attack at equal cost, and luck that must not count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import draws_for, generator, normal, row_keys
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import Norm

EPS = {"linf": 0.05, "l2": 0.5}


class Linear(nn.Module):
    """Two classes whose margin is a linear function, far from being changed by small ε."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(2 * 8 * 8, generator=generator("weight")))

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.score(x), torch.full_like(x[:, 0, 0, 0], -1000.0)], dim=1)


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.9), ("l2", 0.6)])
def test_approaches_the_optimum_of_a_linear_model(norm: Norm, share: float, attacked: Callable[..., Tensor]) -> None:
    """``min w·δ`` over the ball is −ε‖w‖ in the dual norm; random search comes near, and never beyond."""
    model, threat = Linear(), LpThreat(norm, EPS[norm])
    x = 0.4 + 0.2 * torch.rand(4, 2, 8, 8, generator=generator("images"))
    adversarial = attacked("square-eot", model, x, torch.zeros(4, dtype=torch.long), threat, queries=1200)
    reached = model.score(x) - model.score(adversarial)
    optimum = threat.eps * model.weight.norm(p=1 if norm == "linf" else 2)
    assert (reached >= share * optimum).all()
    assert (reached <= 1.001 * optimum).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_as_strong_as_the_library_at_equal_queries(
    norm: Norm, trained: nn.Module, images: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = images[0][900:940], images[1][900:940]
    threat = LpThreat(norm, {"linf": 0.03, "l2": 0.3}[norm])
    accuracy = {
        name: (trained(attacked(name, trained, x, y, threat, queries=250)).argmax(dim=1) == y).float().mean()
        for name in ("square", "square-eot")
    }
    clean = (trained(x).argmax(dim=1) == y).float().mean()
    assert accuracy["square-eot"] < clean - 0.15
    assert accuracy["square-eot"] <= accuracy["square"] + 0.04


class Coin(nn.Module):
    """Wrong in a few draws wherever one looks; in all of them where the first row of pixels is dark."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        luck = normal(row_keys(len(x)), ())
        margin = 10 * (x[:, 0, 0].mean(dim=1) - 0.4) + luck
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def test_averages_over_draws_and_takes_no_lucky_one_for_success(attacked: Callable[..., Tensor]) -> None:
    x = torch.full((3, 1, 8, 8), 0.9)
    y = torch.zeros(3, dtype=torch.long)
    adversarial = attacked("square-eot", Coin(), x, y, LpThreat("linf", 0.3), queries=300, eot=10)
    darkened = (x - adversarial)[:, 0, 0].mean(dim=1)
    assert (darkened > 0.2).all()


def test_stays_with_the_same_point_whatever_the_company(noisy: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    x, y = held_out

    def run(ids: list[int]) -> Tensor:
        with draws_for([("image", i) for i in ids]):
            generators = [generator("attack", i) for i in ids]
            function = ATTACKS.get("square-eot").function
            return function(noisy, x[ids], y[ids], LpThreat("l2", 0.5), generators=generators, queries=25, eot=2)

    torch.testing.assert_close(run([0, 1, 2])[1:2], run([1]), atol=1e-6, rtol=0)
