"""The cascade: as strong as its parts, cheaper than AutoAttack, and neither blinded nor hurried by luck."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import draws_for
from rdc_bench.evaluation.metering import metered
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import Norm

EPS: dict[Norm, float] = {"linf": 0.025, "l2": 0.22}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.usefixtures("small_budgets")
def test_breaks_what_autoattack_breaks_at_a_lower_price(
    norm: Norm, trained: nn.Module, images: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    """AutoAttack has a budget for tests here: 12 steps for each run of Auto-PGD and 60 queries."""
    x, y = images[0][900:930], images[1][900:930]
    threat = LpThreat(norm, EPS[norm])
    right, passes = {}, {}
    for name, options in (("autoattack", {}), ("ensemble", {"steps": 12, "queries": 500})):
        with metered(trained) as meter:
            adversarial = attacked(name, trained, x, y, threat, **options)
        right[name] = (trained(adversarial).argmax(dim=1) == y).sum()
        passes[name] = meter.forward + meter.backward
    clean = (trained(x).argmax(dim=1) == y).sum()
    assert 3 < right["autoattack"] < clean - 3
    assert right["ensemble"] <= right["autoattack"]
    assert passes["ensemble"] <= passes["autoattack"]


class Quantised(nn.Module):
    """Rounds its input, so that no gradient comes through."""

    def __init__(self, net: nn.Module, differentiable: bool) -> None:
        super().__init__()
        self.net = net
        self.differentiable = differentiable

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return self.net((x * 16).round() / 16)


@pytest.mark.parametrize("differentiable", [True, False])
def test_goes_on_without_gradients(
    differentiable: bool, trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = held_out
    model = Quantised(trained, differentiable)
    with metered(model) as meter:
        adversarial = attacked("ensemble", model, x, y, LpThreat("linf", 0.2), queries=300)
    assert (model(adversarial).argmax(dim=1) != y).float().mean() > 0.7
    assert meter.backward <= len(x)  # the look at the gradient is the only one


class Misleading(Quantised):
    """Quantised as well, with a gradient that is not zero but says nothing."""

    def forward(self, x: Tensor) -> Tensor:
        decoy = 1e-3 * torch.sin(50 * x.sum(dim=(1, 2, 3)))
        return super().forward(x) + decoy[:, None] * torch.arange(10)


def test_finds_out_that_gradients_mislead(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = held_out
    model, threat = Misleading(trained, differentiable=False), LpThreat("linf", 0.08)

    def broken(adversarial: Tensor) -> int:
        return int((model(adversarial).argmax(dim=1) != y).sum())

    along_gradients = broken(attacked("apgd-margin", model, x, y, threat, steps=20))
    probed = broken(attacked("square-eot", model, x, y, threat, queries=20))
    assert broken(attacked("ensemble", model, x, y, threat, steps=20, queries=500)) > max(along_gradients, probed)


def test_what_random_models_are_shown_fools_all_draws_or_the_most(
    noisy: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = held_out
    threat = LpThreat("l2", 0.8)

    def survival(adversarial: Tensor) -> Tensor:
        with draws_for([("judge", i) for i in range(len(x))]):
            return (noisy(adversarial.repeat(40, 1, 1, 1)).argmax(dim=1) == y.repeat(40)).float().mean()

    alone = survival(attacked("apgd-ce", noisy, x, y, threat, steps=8, eot=4))
    assert survival(attacked("ensemble", noisy, x, y, threat, steps=16, eot=4, queries=300)) <= alone + 0.02
    assert alone < survival(x)


def test_broken_images_leave_the_later_attacks(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    x, y = held_out
    with metered(trained) as meter:
        attacked("ensemble", trained, x, y, LpThreat("linf", 0.25), steps=50)
    assert meter.forward + meter.backward < 2 * 15 * len(x)
