"""Models whose gradients are absent or lie: no attack is believed that followed them, and honest models are not held up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench.evaluation import execute
from rdc_bench.evaluation import witness as witness_module
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.evaluation.profiles import PROFILES, Witness
from rdc_bench.evaluation.run import RunResult
from rdc_bench.results.store import RunFolder

N = 16


class Told(torch.autograd.Function):
    """The first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, true: Tensor, told: Tensor) -> Tensor:
        return true.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, g


class Liar(nn.Module):
    """``standard-fashion-mnist`` behind something that spoils its gradient, and changes its answers little or not at all."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = rdc_bench.load_model("standard-fashion-mnist")
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.net, x)


def right_on_clean_images_alone(net: nn.Module, x: Tensor) -> Tensor:
    logits = net(x)
    return torch.where(_filed(x)[:, None], logits, Told.apply(logits.detach(), -logits))


def _filed(x: Tensor) -> Tensor:
    """Whether all pixels of an image are multiples of 1/255, as those of a file are, bool (B,)."""
    return ((255 * x - (255 * x).round()).abs() < 1e-3).flatten(1).all(dim=1)


LINEAR = torch.randn(784, 10, generator=torch.Generator().manual_seed(3))
ABSENT = {
    "nan": lambda net, x: net(x) + 0 * (0 * x).sqrt().sum(),
    "infinite": lambda net, x: net(x) + 1e-30 * (x * 0).abs().pow(0.25).sum(),
    "detached": lambda net, x: net(x.detach() + 0 * x),
    "rounded": lambda net, x: net((255 * x).round() / 255),
    "one-hot": lambda net, x: nn.functional.one_hot(net(x).argmax(dim=1), 10).float() + 0 * x.sum(),
}
LYING = {
    "negated": lambda net, x: Told.apply(net(x).detach(), -net(x)),
    "of-a-linear-function": lambda net, x: Told.apply(net(x).detach(), x.flatten(1) @ LINEAR),
    "of-the-mirrored-image": lambda net, x: Told.apply(net(x).detach(), net(x.flip(-1))),
    "right-on-clean-images-alone": right_on_clean_images_alone,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile quick with a shorter search."""
    shorter = {
        kind: [w._replace(options={"steps": 20, "queries": 200, "eot": 2}) if w.attack == "ensemble" else w for w in listed]
        for kind, listed in PROFILES["quick"].witnesses.items()
    }
    monkeypatch.setitem(PROFILES, "quick", PROFILES["quick"]._replace(witnesses=shorter))


def evaluated(tmp_path: Path, models: list[str], **more: Any) -> RunResult:
    result = rdc_bench.run(models, **{"threat": "linf", "eps": "8/255", "n": N, "out": tmp_path, **more})
    assert isinstance(result, RunResult)
    return result


def some_and_all(few: list[str], models: dict[str, Any]) -> list[Any]:
    """A few of the models, and all of them in the slow tests."""
    return [pytest.param(few, id="a few"), pytest.param(list(models), id="all", marks=pytest.mark.slow)]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("names", some_and_all(["nan", "rounded"], ABSENT))
def test_absent_gradients_leave_images_undecided(names: list[str], tmp_path: Path, registered: Any) -> None:
    for name in names:
        registered.model(name, functools.partial(Liar, ABSENT[name]))
    result = evaluated(tmp_path, names)
    assert not result.complete
    for summary in result.models:
        assert summary.attacks["pgd"].failed > 0.5 * N
        assert summary.avg.value == 0, summary.model  # what no attack broke is undecided, and counts as broken
        assert summary.undecided > 0
        assert summary.doubts
        assert summary.as_json()["upper_bound"]
    reasons = {failure.reason for failure in result.manifest.failures if failure.attack == "pgd"}
    assert all("zero or not finite" in reason for reason in reasons)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("names", some_and_all(["right-on-clean-images-alone"], LYING))
def test_gradients_that_lie_are_found_out_and_the_lowest_figure_counts(
    names: list[str], tmp_path: Path, registered: Any
) -> None:
    for name in names:
        registered.model(name, functools.partial(Liar, LYING[name]))
    result = evaluated(tmp_path, ["standard-fashion-mnist", *names])
    honest, *lying = result.models
    assert honest.doubts == ()
    assert not honest.as_json()["upper_bound"]
    assert "ensemble" not in honest.attacks
    assert not result.complete
    for summary in lying:
        assert summary.attacks["pgd"].worst.value > honest.worst.value + 0.2, summary.model
        assert any("as the gradient promises" in doubt for doubt in summary.doubts), summary.model
        assert summary.worst.value <= summary.attacks["pgd"].worst.value - 0.2
        for name in ("transfer", "ensemble"):
            seen = summary.attacks[name].witnessed
            assert seen is not None
            assert seen.tried == seen.standing > 0


@pytest.mark.parametrize("attack", ["apgd-dlr", "fmn", "foolbox:LinfPGD"])
def test_every_attack_is_watched_and_nothing_is_added_to_those_that_were_named(
    tmp_path: Path, registered: Any, attack: str
) -> None:
    registered.model("rounded", functools.partial(Liar, ABSENT["rounded"]))
    registered.model("negated", functools.partial(Liar, LYING["negated"]))
    result = evaluated(tmp_path, ["rounded", "negated"], attacks=[attack])
    rounded, negated = result.models
    assert list(rounded.attacks) == [attack]
    assert rounded.attacks[attack].failed > 0.5 * N
    assert rounded.avg.value == 0
    assert negated.doubts
    assert not result.complete


def test_nan_logits_within_the_ball_are_a_wrong_answer_that_the_attack_keeps(tmp_path: Path, registered: Any) -> None:
    registered.model("fragile", functools.partial(Liar, lambda net, x: net(x).masked_fill(~_filed(x)[:, None], torch.nan)))
    registered.attack("passing-by", passing_by, gradient="black-box")
    result = evaluated(tmp_path, ["fragile"], attacks=["pgd", "passing-by"])
    for summary in result.models[0].attacks.values():
        assert summary.avg.value == 0
    records = RunFolder(result.path).records()
    broken = records[records["success"]]
    assert (broken["adversarial_prediction"] == -1).all()
    assert (broken["distance"] <= 8 / 255 + 1e-6).all()
    assert rdc_bench.verify(result.path).ok


def passing_by(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, generator: torch.Generator) -> Tensor:
    """Looks at other points and returns the clean image."""
    for _ in range(20):
        with torch.no_grad():
            model(threat.random_start(x, [generator]))
            model(1 - x)  # outside
    return x


def test_an_attack_that_takes_no_gradient_says_so_or_has_failed(tmp_path: Path, registered: Any) -> None:
    registered.attack("still", lambda model, x, y, threat, *, generator: x, gradient="white-box")
    result = evaluated(tmp_path, ["standard-fashion-mnist"], attacks=["still"])
    assert result.models[0].attacks["still"].failed > 0
    assert "declare it with gradient='black-box'" in result.manifest.failures[0].reason


def test_a_dear_model_shows_a_sample_that_its_records_and_seed_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(witness_module, "CHEAP", 0.5)
    monkeypatch.setattr(witness_module, "LEAST", 3)
    monkeypatch.setitem(
        PROFILES,
        "quick",
        PROFILES["quick"]._replace(witnesses={"linf": [Witness("square-eot", {"queries": 10})], "": []}),
    )
    first, again = (evaluated(tmp_path / str(i), ["at-linf-fashion-mnist"], keep="all") for i in range(2))
    seen = first.models[0].attacks["square-eot"].witnessed
    assert seen is not None
    assert seen.tried == 3 < seen.standing
    shown = [sorted(_shown(run, "square-eot")) for run in (first, again)]
    assert shown[0] == shown[1]
    other = evaluated(tmp_path, ["at-linf-fashion-mnist"], seed=1)
    assert sorted(_shown(other, "square-eot")) != shown[0]
    assert rdc_bench.verify(first.path).ok


def _shown(run: RunResult, attack: str) -> set[int]:
    records = RunFolder(run.path).records()
    return set(records.loc[records["attack"] == attack, "index"])


def test_witnesses_change_what_a_run_is_and_can_be_left_out() -> None:
    def plan(**more: Any) -> Any:
        return make_plan(RunConfig(models=("at-linf-fashion-mnist",), n=4, **more))

    assert [a.label for a in plan().attacks if a.witness] == ["transfer", "ensemble"]
    assert not any(a.witness for a in plan(witness=False).attacks)
    assert not any(a.witness for a in plan(attacks=("pgd",)).attacks)
    assert plan().identity != plan(witness=False).identity


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_profile_checks_gradients_wherever_its_attacks_follow_them(profile: str) -> None:
    config = RunConfig(models=("at-linf-fashion-mnist",), n=4, profile=profile)
    for threat in ("linf", "l2", "l1", "stadv", "elastic", "jpeg-linf", "rotation-translation"):
        planned = make_plan(config.model_copy(update={"threat": threat})).attacks
        searches = [a for a in planned if a.witness and not a.attack.sources]
        assert searches, threat
        assert profile == "quick" or not any(a.if_doubted for a in searches)


@pytest.mark.parametrize("name", ["standard-fashion-mnist", "at-linf-fashion-mnist"])
def test_checks_and_witness_take_a_third_of_the_attack_at_most_in_quick(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: Any
) -> None:
    spent = 0

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = rdc_bench.load_model(name)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal spent
            spent += len(x)
            logits: Tensor = self.net(x)
            if logits.requires_grad:
                logits.register_hook(lambda _: count(len(x)))
            return logits

    def count(rows: int) -> None:
        nonlocal spent
        spent += rows

    def cost(folder: str, **more: Any) -> tuple[RunResult, int]:
        nonlocal spent
        spent = 0
        result = evaluated(tmp_path / folder, ["counting"], n=32, **more)
        return result, spent

    registered.model("counting", Counting)
    result, with_checks = cost("with")
    monkeypatch.setattr(execute, "CHECKED", 0)
    _, without = cost("without", witness=False)
    records = RunFolder(result.path).records()
    attack = records.loc[records["attack"] == "pgd", "nfe"].sum()
    assert 0 < with_checks - without <= attack / 3


class Noisy(nn.Module):
    """Draws anew at each call, from torch's generator, so much that gradients of two draws disagree."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__()
        self.net = rdc_bench.load_model("standard-fashion-mnist")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x + 0.3 * torch.randn_like(x))
        return logits


def test_a_step_averages_as_many_draws_as_gradients_need_unless_the_user_says_how_many(tmp_path: Path, registered: Any) -> None:
    registered.model("noisy", Noisy)
    options = {"attacks": ["pgd"], "repeats": 2, "n": 6}
    needed = evaluated(tmp_path, ["noisy"], **options, attack_options={"steps": 2})
    given = evaluated(tmp_path, ["noisy"], **options, attack_options={"steps": 2, "eot": 1})
    assert given.path != needed.path
    admission = needed.manifest.models[0].admission
    assert admission is not None
    assert admission.needed_draws > 1
    cost = []
    for run in (needed, given):
        records = RunFolder(run.path).records()
        cost.append(records.loc[(records["attack"] == "pgd") & (records["nfe"] > 0), "nfe"].mean())
    assert cost[0] / cost[1] == pytest.approx(admission.needed_draws)
