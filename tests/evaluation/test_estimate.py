"""Costs foretold, against what attacks spend on a model that they cannot break."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.evaluation.estimate import FORMULAS, Pass, Rates, Subject, calls, estimate, timed
from rdc_bench.evaluation.metering import metered
from rdc_bench.evaluation.plan import PlannedAttack, RunConfig, make_plan
from rdc_bench.randomness import draws_for, generator
from rdc_bench.threats import make_threat

SHAPE, CLASSES = (3, 32, 32), 7
#: Options that make attacks short, and tell apart what is multiplied from what is added.
SHORT = {
    "steps": 6,
    "eot": 3,
    "restarts": 2,
    "queries": 40,
    "n_target_classes": 9,
    "places": 2,
    "draws": 4,
    "chosen": 3,
    "checks": 5,
}
SHORT |= {"rotations": 3, "translations": 2, "period": 4}
THREATS = {"patch": "patch", "apgd-l1": "l1", "stadv": "stadv", "jpeg": "jpeg-linf"}
#: All but those that need other models, or a denoiser in this one.
COUNTED = [
    pytest.param(name, marks=[pytest.mark.slow] if name in ("autoattack", "autoattack-plus") else [])
    for name in sorted(set(FORMULAS) - {"transfer", "lagrange"})
]


class Unbreakable(nn.Module):
    """Always class 0, with a gradient all the same."""

    def __init__(self, stochastic: bool = False, seconds: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.randn(SHAPE[0] * SHAPE[1] * SHAPE[2], CLASSES, generator=torch.Generator().manual_seed(0))
        self.stochastic = stochastic
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return torch.eye(CLASSES)[0] * 1e3 + 1e-2 * x.flatten(1) @ self.weight


def threat_of(name: str) -> str:
    kinds = ATTACKS.get(name).threats
    return THREATS.get(name, kinds[0])


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_calls_are_those_that_the_attack_makes(name: str, stochastic: bool) -> None:
    attack = ATTACKS.get(name)
    options = attack.options({key: value for key, value in SHORT.items() if key in attack.defaults})
    model, threat = Unbreakable(stochastic), make_threat(threat_of(name), None, SHAPE)[0]
    x = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    with metered(model) as meter, draws_for([("test", 0)]):
        attack.function(model, x, torch.zeros(1, dtype=torch.long), threat, generators=[generator("test")], **options)
    expected = calls(PlannedAttack(attack, options, "rdc_bench"), Subject(stochastic, CLASSES, threat.kind))
    assert expected is not None
    assert expected.backward == meter.backward
    assert expected.forward == pytest.approx(meter.forward, abs=15, rel=0.01)  # AutoAttack looks at the image between its parts


def test_nothing_is_guessed_of_an_attack_from_elsewhere(registered) -> None:
    def pgd_like(model, x, y, threat, *, generator, steps: int = 10, eot: int = 1):
        return x

    registered.attack("mine", pgd_like)
    mine = ATTACKS.get("mine")
    assert calls(PlannedAttack(mine, mine.options({}), "test"), Subject(False, 10, "linf")) is None


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
    rates = timed(Unbreakable(seconds=0.02), images, gradients=True)
    assert rates is not None
    assert rates.plain == pytest.approx((0.02, 1.0, 0.0), rel=0.5)
    assert rates.gradient == pytest.approx((0.02, 1.0, 1.0), rel=0.5)


def test_a_model_that_cannot_be_timed_is_unknown_and_no_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("planted")

    assert timed(Broken(), torch.zeros(2, *SHAPE), gradients=True) is None


def test_timing_leaves_the_generators_alone(toys) -> None:
    class Drawing(Unbreakable):
        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(0)
            return super().forward(x) + torch.randn(1)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert timed(Drawing(), torch.zeros(2, *SHAPE), gradients=False) is not None
    assert torch.equal(torch.rand(3), expected)
    assert math.isfinite(timed(Drawing(), torch.zeros(2, *SHAPE), gradients=True).plain.seconds)
