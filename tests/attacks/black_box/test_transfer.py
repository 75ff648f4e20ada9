from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks.losses import margin
from rdc_bench.core.randomness import draws_for
from rdc_bench.data import load_dataset
from rdc_bench.evaluation.plan import Plan, RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.results.store import RunFolder
from rdc_bench.threats import LpThreat
from rdc_bench.zoo.catalog import baselines
from rdc_bench.zoo.loading import load_model


class Masked(nn.Module):
    """A network whose logits are rounded, so that its own gradient is zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        logits = self.net(x)
        return logits.round() + 0 * logits


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    dataset = load_dataset("fashion-mnist", "test", 5)
    return dataset.images, dataset.labels


@pytest.fixture
def weak(registered: Any) -> list[str]:
    """A linear source that knows the toy's weights, and one that is as good as none."""

    def shuffled() -> nn.Module:
        toy = registered.toy()
        toy.weight.data = toy.weight.data.flip(1)
        return toy

    registered.model("twin", registered.toy)
    registered.model("stranger", shuffled)
    return ["twin", "stranger"]


@pytest.mark.parametrize("kind", ["linf", "l2"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_result_is_allowed_and_depends_on_the_image_alone(
    kind: Any, noise: float, weak: list[str], batch: tuple[Tensor, Tensor], registered: Any, attacked: Any
) -> None:
    x = batch[0][:4]
    model = registered.toy(noise=noise).requires_grad_(False)
    y = registered.toy()(x).argmax(dim=1)
    threat = LpThreat(kind, {"linf": 0.02, "l2": 0.3}[kind])
    options = {"steps": 5, "eot": 2, "sources": ", ".join(weak)}
    together = attacked("transfer", model, x, y, threat, **options)
    assert threat.contains(x, together).all()
    order = [2, 0, 3, 1]
    shuffled = attacked("transfer", model, x[order], y[order], threat, ids=order, **options)
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
    alone = attacked("transfer", model, x[1:2], y[1:2], threat, ids=[1], **options)
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=0)


def test_it_breaks_a_model_whose_gradient_is_masked(
    weak: list[str], batch: tuple[Tensor, Tensor], registered: Any, attacked: Any
) -> None:
    x = batch[0]
    model = Masked(registered.toy()).requires_grad_(False)
    y = model(x).argmax(dim=1)
    threat = LpThreat("linf", 0.1)
    assert (model(attacked("transfer", model, x, y, threat, steps=10, sources="twin")).argmax(dim=1) != y).all()


def test_the_best_source_is_kept(weak: list[str], batch: tuple[Tensor, Tensor], registered: Any, attacked: Any) -> None:
    x = batch[0]
    model = registered.toy(noise=0.01).requires_grad_(False)
    y = registered.toy()(x).argmax(dim=1)
    threat = LpThreat("linf", 0.02)

    def found(sources: str) -> Tensor:
        points = attacked("transfer", model, x, y, threat, steps=5, sources=sources)
        with draws_for([("judge", i) for i in range(len(x))]):
            return margin(model(points), y)

    assert (found("twin") > found("stranger")).all()
    torch.testing.assert_close(found("stranger,twin"), found("stranger").maximum(found("twin")), rtol=0.02, atol=0.1)


def test_a_source_is_attacked_beyond_its_first_mistake(
    weak: list[str], batch: tuple[Tensor, Tensor], registered: Any, attacked: Any
) -> None:
    x = batch[0]
    twin = registered.toy().requires_grad_(False)
    y = twin(x).argmax(dim=1)
    threat = LpThreat("linf", 0.1)  # some random starts are mistakes already
    first = attacked("apgd-margin", twin, x, y, threat, steps=10, eot=1)
    further = attacked("transfer", registered.toy(noise=0.01).requires_grad_(False), x, y, threat, steps=10, sources="twin")
    gained = margin(twin(further), y) - margin(twin(first), y)
    assert (gained >= 0).all()
    assert gained.max() > 1


def test_baselines_are_those_of_the_dataset() -> None:
    expected = {name for name in rdc_bench.list_models() if name.endswith("fashion-mnist")}
    expected = {name for name in expected if name.startswith(("at-", "standard-", "trades-"))}
    assert set(baselines("fashion-mnist")) == expected


def test_a_run_settles_which_models_are_the_sources(weak: list[str], toys: list[str]) -> None:
    def planned(**options: Any) -> Plan:
        return make_plan(RunConfig(models=("toy",), attacks=("transfer",), attack_options=options, n=6))

    every = planned().attacks[0]
    assert every.options["sources"] == ", ".join(baselines("fashion-mnist"))
    assert planned(sources=every.options["sources"]).identity == planned().identity
    assert planned(sources="twin").identity != planned().identity
    (digest,) = planned(sources="at-linf-fashion-mnist").attacks[0].sources[0].weights.values()
    assert digest in json.dumps(planned().attacks[0].identity)
    with pytest.raises(UserError, match="Did you mean 'twin'"):
        planned(sources="twinn")


def test_a_run_without_any_source_is_refused(toys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdc_bench.evaluation.planning.baselines", lambda dataset: [])
    with pytest.raises(UserError, match="no baseline of fashion-mnist is here; name models with sources=NAME"):
        make_plan(RunConfig(models=("toy",), attacks=("transfer",), n=6))


def test_a_model_is_never_its_own_source(weak: list[str], batch: tuple[Tensor, Tensor], attacked: Any) -> None:
    threat = LpThreat("linf", 0.1)
    twin = load_model("twin")
    with pytest.raises(UserError, match="no model to transfer from"):
        attacked("transfer", twin, *batch, threat, sources="twin")
    with pytest.raises(UserError, match="no card that names its dataset"):
        attacked("transfer", nn.Flatten(), *batch, threat)
    with pytest.raises(UserError, match="Did you mean 'twin'"):
        attacked("transfer", nn.Flatten(), *batch, threat, sources="twinn")
    with pytest.raises(UserError, match=r"takes images of shape \(1, 28, 28\)"):
        attacked("transfer", nn.Flatten(), batch[0][:, :, 1:], batch[1], threat, sources="twin")


def test_a_run_records_a_black_box(weak: list[str], toys: list[str], tmp_path: Any) -> None:
    done = rdc_bench.run(
        models=["toy"], attacks=["transfer"], attack_options={"sources": "twin", "steps": 3}, n=12, out=tmp_path, eps="8/255"
    )
    records = RunFolder(done.path).records().query("attack == 'transfer'")
    assert done.complete
    assert list(records["gradient"].unique()) == ["none"]
    assert done.models[0].clean.value > 0
    assert done.models[0].worst.value == 0.0
