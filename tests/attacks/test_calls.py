"""Calls foretold, against what attacks make of a model that they cannot break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.attacks.calls import FORMULAS, Subject, calls
from rdc_bench.core.randomness import draws_for, generator
from rdc_bench.evaluation.metering import metered
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

    def __init__(self, stochastic: bool) -> None:
        super().__init__()
        self.weight = torch.randn(SHAPE[0] * SHAPE[1] * SHAPE[2], CLASSES, generator=torch.Generator().manual_seed(0))
        self.stochastic = stochastic

    def forward(self, x: Tensor) -> Tensor:
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
    expected = calls(name, options, Subject(stochastic, CLASSES, threat.kind))
    assert expected is not None
    assert expected.backward == meter.backward
    assert expected.forward == pytest.approx(meter.forward, abs=15, rel=0.01)  # AutoAttack looks at the image between its parts


def test_nothing_is_guessed_of_an_attack_from_elsewhere(registered) -> None:
    def pgd_like(model, x, y, threat, *, generator, steps: int = 10, eot: int = 1):
        return x

    registered.attack("mine", pgd_like)
    mine = ATTACKS.get("mine")
    assert calls("mine", mine.options({}), Subject(False, 10, "linf")) is None
