"""Costs of plans and models, foretold from what calls cost."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.evaluation.estimate import Pass, Rates, estimate, timed
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan

SHAPE = (3, 32, 32)


class Timed(nn.Module):
    """Logits that take a known time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.ones(3 * 32 * 32, 7)
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return x.flatten(1) @ self.weight


RATES = Rates(False, Pass(0.1, 2.0, 0.0), Pass(0.5, 3.0, 4.0))


def plan_of(toys, **options):
    return make_plan(RunConfig(models=tuple(toys), n=5, repeats=3, **options))


def test_a_plan_costs_what_its_calls_do(toys) -> None:
    plan = plan_of(toys, attacks=("pgd",), attack_options={"steps": 9, "eot": 2})
    for model in estimate(plan, {"toy": RATES, "noisy": RATES._replace(stochastic=True)}):
        draws = 3 if model.model == "noisy" else 1
        clean, pgd = model.attacks
        assert (clean.attack, pgd.attack) == ("clean", "pgd")
        assert clean.seconds == pytest.approx(5 * draws * 0.1)
        assert (pgd.nfe_forward, pgd.nfe_backward) == pytest.approx((5 * (20 * 3 + draws * 2), 5 * 20 * 4))
        assert pgd.seconds == pytest.approx(5 * (20 * 0.5 + draws * 0.1))
        assert model.seconds == pytest.approx(clean.seconds + pgd.seconds)
        assert model.unknown == []


def test_only_what_is_left_counts(toys) -> None:
    plan = plan_of(toys, attacks=("fgsm",))
    left = {(0, 0): 0, (0, 1): 2, (1, 0): 0, (1, 1): 0}
    toy, noisy = estimate(plan, {"toy": RATES, "noisy": None}, left)
    assert toy.seconds == pytest.approx(2 * (0.5 + 0.1))
    assert (noisy.seconds, noisy.unknown) == (0.0, [])


def test_what_is_not_known_is_said(toys, registered) -> None:
    registered.attack("mine", lambda model, x, y, threat, *, generator: x)
    toy, noisy = estimate(plan_of(toys, attacks=("mine", "fgsm")), {"toy": RATES, "noisy": None})
    assert toy.unknown == ["mine"]
    assert toy.seconds > 0
    assert noisy.unknown == ["clean", "mine", "fgsm"]


def test_transfer_pays_for_its_sources(toys) -> None:
    plan = plan_of(["toy"], attacks=("transfer",), attack_options={"sources": "noisy", "steps": 10})
    (model,) = estimate(plan, {"toy": RATES, "noisy": RATES})
    assert model.attacks[1].seconds == pytest.approx(5 * (11 * 0.5 + 3 * 0.1))
    (model,) = estimate(plan, {"toy": RATES, "noisy": None})
    assert model.unknown == ["transfer"]


def test_a_model_is_timed() -> None:
    images = torch.zeros(64, *SHAPE)
    rates = timed(Timed(seconds=0.02), images, gradients=True)
    assert rates is not None
    assert rates.plain == pytest.approx((0.02, 1.0, 0.0), rel=0.5)
    assert rates.gradient == pytest.approx((0.02, 1.0, 1.0), rel=0.5)


def test_a_model_that_cannot_be_timed_is_unknown_and_no_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("planted")

    assert timed(Broken(), torch.zeros(2, *SHAPE), gradients=True) is None


def test_timing_leaves_the_generators_alone(toys) -> None:
    class Drawing(Timed):
        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(0)
            return super().forward(x) + torch.randn(1)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert timed(Drawing(), torch.zeros(2, *SHAPE), gradients=False) is not None
    assert torch.equal(torch.rand(3), expected)
    assert math.isfinite(timed(Drawing(), torch.zeros(2, *SHAPE), gradients=True).plain.seconds)
