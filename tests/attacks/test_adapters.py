"""Attacks of other libraries: what the adapters promise with any library, and the known optima with the real ones."""

from __future__ import annotations

import importlib
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks import ATTACKS
from rdc_bench.attacks.adapters import LIBRARIES, adapt
from rdc_bench.cli import main
from rdc_bench.evaluation.plan import PlannedAttack
from rdc_bench.randomness import draws_for, generator
from rdc_bench.results.store import RunFolder
from rdc_bench.threats import LpThreat

LINF = LpThreat("linf", 8 / 255)


class Outside:
    """Goes as far as images can.

    Distance Measure : Linf
    """

    def __init__(
        self, model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10, tool: Any = print
    ) -> None:
        self.model, self.eps, self.alpha, self.steps = model, eps, alpha, steps

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        type(self).last = self
        return torch.ones_like(x)


class Rude(Outside):
    """Does what libraries do to their surroundings.

    Distance Measure : Linf, L2
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.model.train()
        for parameter in self.model.parameters():
            parameter.data.zero_()
        x = x.requires_grad_()
        for _ in range(3):
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            self.model(x).sum().backward()
        print("on stdout")
        return x + torch.rand_like(x)


class Undefined(Outside):
    """Returns no numbers.

    Distance Measure : Linf
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return x * torch.nan


class Cropping(Outside):
    """Returns another shape.

    Distance Measure : Linf
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return x[..., 1:]


class Sparse(Outside):
    """Counts pixels.

    Distance Measure : L0
    """


class Demanding(Outside):
    """Needs more than a command line can give.

    Distance Measure : Linf
    """

    def __init__(self, model: nn.Module, trainloader: Any) -> None:
        super().__init__(model)


class Typed(Outside):
    """Says what it takes in several ways, and in none.

    Distance Measure : Linf
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        model,
        eps=8 / 255,
        alpha=2 / 255,
        steps=10,
        c=1,
        restarts: int = 0,
        rule: Literal["EN"] | Literal["L1"] = "EN",
        decay: float | np.ndarray | None = None,
        early=True,
        places=(1, 2),
        tool: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(model)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    ATTACKS._adapted.clear()
    yield
    ATTACKS._adapted.clear()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library in the place of torchattacks."""
    module = ModuleType("torchattacks")
    classes = (Outside, Typed, Rude, Undefined, Cropping, Sparse, Demanding)
    module.__all__ = [cls.__name__ for cls in classes]  # type: ignore[attr-defined]
    for cls in classes:
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "torchattacks", module)


class Drawing(nn.Module):
    """A model that draws from the global generators, and keeps what it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.drawn: list[tuple[float, float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        return self.layer(x.flatten(1))


@pytest.fixture
def x() -> Tensor:
    return 0.3 + 0.4 * torch.rand(1, 1, 4, 4, generator=generator("adapter test"))


def attack_with(name: str, model: nn.Module, x: Tensor, threat: LpThreat, key: str = "a", **options: Any) -> Tensor:
    found = ATTACKS.get(name)
    y = torch.zeros(len(x), dtype=torch.long)
    return found.function(model, x, y, threat, generator=generator(key), **found.options(options))


@pytest.mark.parametrize(
    ("library", "command"), [("foolbox", "rdc-bench[foolbox]"), ("art", "[art]"), ("torchattacks", "--no-deps")]
)
def test_an_absent_library_is_named_with_the_command_that_installs_it(
    library: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == library] + [library]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        ATTACKS.get(f"{library}:PGD")
    assert f"needs the package {library}" in str(caught.value)
    assert "pip install" in str(caught.value)
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_mistyped_names_are_answered_with_close_ones() -> None:
    with pytest.raises(UserError, match=r"unknown attack of torchattacks 'outsied'\. Did you mean 'Outside'"):
        ATTACKS.get("torchattacks:outsied")
    with pytest.raises(UserError, match=r"unknown attack 'torchatacks:Outside'\. Did you mean 'torchattacks:Outside'"):
        ATTACKS.get("torchatacks:Outside")
    with pytest.raises(UserError, match=r"unknown option of attack torchattacks:Outside 'step'\. Did you mean 'steps'"):
        ATTACKS.get("torchattacks:Outside").options({"step": 3})


@pytest.mark.usefixtures("stand_in")
def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(UserError, match="no untargeted"):
        ATTACKS.get("torchattacks:Sparse")
    with pytest.raises(UserError, match="argument 'trainloader' has no default"):
        ATTACKS.get("torchattacks:Demanding")


@pytest.mark.usefixtures("stand_in")
def test_an_adapted_attack_is_described_like_any_other() -> None:
    found = ATTACKS.get("torchattacks:Rude")
    assert found.threats == ("linf", "l2")
    assert found.gradient == "white-box"
    assert found.defaults == {"alpha": None, "steps": 10}  # ε is the threat's, and a tool cannot be written on a command line
    assert "torchattacks:Rude" not in ATTACKS.names()
    origin = ATTACKS.entry("torchattacks:Rude").origin
    assert origin.startswith("torchattacks ")
    # Another version of the library may give other results, so a run made with it is another run.
    assert PlannedAttack(found, {}, "torchattacks 1").identity != PlannedAttack(found, {}, "torchattacks 2").identity
    own = ATTACKS.get("pgd")
    assert PlannedAttack(own, {}, "a").identity == PlannedAttack(own, {}, "b").identity == ["pgd", {}]


@pytest.mark.usefixtures("stand_in")
def test_options_take_what_the_constructor_tells() -> None:
    found = ATTACKS.get("torchattacks:Typed")
    kinds = {option.name: (option.type, option.allowed) for option in found.settings}
    assert kinds == {
        "alpha": ("float or null", "more than 0"),
        "steps": ("int", "at least 1"),
        "c": ("float", "at least 0"),
        "restarts": ("int", "at least 0"),  # none at all is its default
        "rule": ("str", "EN or L1"),
        "decay": ("float or null", ""),
        "early": ("bool", ""),
        "places": ("any", ""),
        "tool": ("null", ""),
    }
    given = {"alpha": 1, "steps": 1, "c": 0.5, "restarts": 0, "rule": "L1", "decay": -1, "early": False, "places": [3]}
    assert found.options(given) == {**found.defaults, **given}
    wrong = {"alpha": 0, "steps": 0, "c": -1, "restarts": 1.5, "rule": "L2", "decay": "big", "early": 1, "places": math.nan}
    for name, value in {**wrong, "tool": "a hammer"}.items():
        with pytest.raises(UserError, match=rf"^(unknown {name} of )?attack torchattacks:Typed(: {name} is| )"):
            found.options({name: value})


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("threat", [LINF, LpThreat("l2", 0.5)])
def test_results_are_projected_to_the_threat_set(threat: LpThreat, x: Tensor) -> None:
    found = attack_with("torchattacks:Rude", Drawing().eval(), x, threat)
    assert threat.contains(x, found).all()
    assert threat.distance(x, found).item() > 0.3 * threat.eps
    torch.testing.assert_close(attack_with("torchattacks:Outside", Drawing(), x, LINF), x + LINF.eps)


@pytest.mark.usefixtures("stand_in")
def test_step_sizes_go_with_the_size_of_the_ball(x: Tensor) -> None:
    attack_with("torchattacks:Outside", Drawing(), x, LpThreat("linf", 0.2))
    assert (Outside.last.eps, Outside.last.alpha) == (0.2, pytest.approx(0.05))  # type: ignore[attr-defined]
    attack_with("torchattacks:Outside", Drawing(), x, LpThreat("linf", 0.2), alpha=0.01, steps=3)
    assert (Outside.last.alpha, Outside.last.steps) == (0.01, 3)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("stand_in")
def test_what_is_no_image_is_an_error_and_no_result(x: Tensor) -> None:
    with pytest.raises(ValueError, match="not finite"):
        attack_with("torchattacks:Undefined", Drawing(), x, LINF)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 4, 3\)"):
        attack_with("torchattacks:Cropping", Drawing(), x, LINF)


@pytest.mark.usefixtures("stand_in")
def test_library_and_surroundings_are_kept_apart(x: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    model = Drawing().eval()
    weights = model.layer.weight.detach().clone()
    before = x.clone()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = [(random.random(), np.random.rand(), torch.rand(()).item()) for _ in range(3)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)

    first = attack_with("torchattacks:Rude", model, x, LINF)

    # The model drew what it would have drawn by itself, in spite of the seeds that the library set before each call ...
    assert model.drawn == expected
    # ... and whatever comes next draws as if nothing had been.
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected[0]
    assert not model.training
    assert torch.equal(model.layer.weight, weights)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, before)
    assert not first.requires_grad
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("stand_in")
def test_an_attack_that_does_not_seed_itself_is_seeded_by_the_generator(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outside, "__call__", lambda self, x, y: torch.rand_like(x))
    first, again = (attack_with("torchattacks:Outside", Drawing(), x, LINF, key="a") for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, attack_with("torchattacks:Outside", Drawing(), x, LINF, key="b"))


@pytest.mark.usefixtures("stand_in")
def test_a_whole_run_judges_what_libraries_return(tmp_path: Path, toys: list[str]) -> None:
    result = rdc_bench.run(
        models=toys,
        threat="linf",
        eps="8/255",
        attacks=["torchattacks:Rude", "torchattacks:Undefined"],
        n=12,
        repeats=2,
        out=tmp_path,
    )
    records = RunFolder(result.path).records()
    rude, undefined = (records[records["attack"] == f"torchattacks:{name}"] for name in ("Rude", "Undefined"))
    assert set(rude["model"]) == set(toys)
    assert set(rude["status"]) == {"ok"}
    assert (rude["distance"] <= 8 / 255 + 1e-6).all()
    assert {"failed"} <= set(undefined["status"]) <= {"failed", "ok"}  # ok: misclassified from the start
    assert not undefined["success"].any()
    assert not result.complete


def test_the_help_of_the_list_mentions_the_adapters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rdc-bench", "list", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    out = capsys.readouterr().out
    assert all(f"{name}:NAME" in out for name in LIBRARIES)


@pytest.fixture
def _library_present(name: str) -> None:
    library = name.partition(":")[0]
    try:
        importlib.import_module(LIBRARIES[library].namespace)
    except ImportError as error:
        pytest.skip(f"{library} cannot be imported ({error}); {LIBRARIES[library].install}")


class TwoClasses(nn.Module):
    """Logits (w·x, 0) with w fixed; the best attack on class 0 under a norm is known."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, generator=generator("w")))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w
        return torch.stack([score, torch.zeros_like(score)], dim=1)


@pytest.mark.usefixtures("_library_present")
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("foolbox:LinfPGD", "linf", {"steps": 80}),
        ("foolbox:L2PGD", "l2", {"steps": 80, "rel_stepsize": 0.1}),
        ("torchattacks:PGD", "linf", {}),
        ("torchattacks:PGDL2", "l2", {"steps": 40}),
        ("art:ProjectedGradientDescent", "linf", {"max_iter": 10}),
        ("art:ProjectedGradientDescent", "l2", {"max_iter": 20}),
    ],
)
def test_the_optimum_on_a_linear_model_is_reached(name: str, kind: str, options: dict[str, Any], x: Tensor) -> None:
    model = TwoClasses().eval()
    w = model.w.detach()
    threat = LpThreat(kind, 0.05)  # type: ignore[arg-type]
    reach = w.abs().sum() if kind == "linf" else w.norm()

    found = attack_with(name, model, x, threat, **options)

    assert threat.contains(x, found).all()
    gained = (model(x) - model(found))[0, 0].item()
    assert gained == pytest.approx(threat.eps * reach.item(), rel=1e-3)
    assert torch.equal(found, attack_with(name, model, x, threat, **options))


@pytest.mark.usefixtures("_library_present")
@pytest.mark.parametrize("name", ["foolbox:LinfPGD", "torchattacks:PGDRS", "art:HopSkipJump"])
def test_a_randomised_model_is_attacked_with_the_draws_of_its_image(
    name: str, noisy: nn.Module, held_out: tuple[Tensor, Tensor]
) -> None:
    x, y = held_out[0][:1], held_out[1][:1]
    attack = ATTACKS.get(name)
    short = {"steps": 3, "max_iter": 1, "max_eval": 20, "init_eval": 10}
    options = attack.options({key: value for key, value in short.items() if key in attack.defaults})

    def attacked(image: int) -> Tensor:
        with draws_for([("image", image)]):
            return attack.function(noisy, x, y, LINF, generator=generator("a"), **options)

    assert LINF.contains(x, attacked(0)).all()
    assert torch.equal(attacked(0), attacked(0))
    assert not torch.equal(attacked(0), attacked(1))


@pytest.mark.usefixtures("_library_present")
@pytest.mark.parametrize("name", ["foolbox:L2DeepFoolAttack", "torchattacks:DeepFool", "art:DeepFool"])
def test_minimum_norm_attacks_stay_within_the_ball(name: str, x: Tensor) -> None:
    model = TwoClasses().eval()
    with torch.no_grad():
        model.w -= model(x)[0, 0] / x.norm() ** 2 * x.flatten()
        model.w += 0.3 * model.w.norm() / x.norm() * x.flatten() / x.norm()
    boundary = (model(x)[0, 0] / model.w.norm()).item()  # its distance
    assert 0.25 < boundary < 0.35
    threat = LpThreat("l2", 0.2)
    found = attack_with(name, model, x, threat)
    assert threat.contains(x, found).all()
    assert threat.distance(x, found).item() == pytest.approx(0.2, rel=1e-4)
    # Along −w, straight to the boundary.
    assert (model(x) - model(found))[0, 0].item() == pytest.approx(0.2 * model.w.norm().item(), rel=1e-2)


@pytest.mark.usefixtures("_library_present")
@pytest.mark.parametrize("name", ["foolbox:HopSkipJumpAttack", "torchattacks:Square", "art:HopSkipJump"])
def test_decision_and_score_based_attacks_are_recorded_as_black_box_and_repeatable(name: str, x: Tensor) -> None:
    found = ATTACKS.get(name)
    assert found.gradient == "black-box"
    budget = {"steps": 2, "max_gradient_eval_steps": 20, "n_queries": 20, "max_iter": 1, "max_eval": 20, "init_eval": 10}
    options = {key: value for key, value in budget.items() if key in found.defaults}
    model = TwoClasses().eval()
    threat = LpThreat("linf", 0.1)
    y = model(x).argmax(dim=1)
    first, again = (found.function(model, x, y, threat, generator=generator("a"), **found.options(options)) for _ in range(2))
    assert torch.equal(first, again)
    assert threat.contains(x, first).all()


@pytest.mark.usefixtures("_library_present")
@pytest.mark.parametrize("name", ["foolbox:", "torchattacks:", "art:"])
def test_every_attack_of_a_library_is_adapted_or_refused_with_a_reason(name: str) -> None:
    adapted = {}
    for cls in LIBRARIES[name[:-1]].classes():
        try:
            adapted[cls] = adapt(name + cls)[0]
        except UserError as error:
            assert "cannot be used here" in str(error)  # noqa: PT017
    assert len(adapted) >= 15
    for attack in adapted.values():
        assert set(attack.threats) <= {"linf", "l2", "l1"}
        json.dumps(attack.defaults)
        for option in attack.settings:
            default = list(option.default) if isinstance(option.default, tuple) else option.default
            assert attack.options({option.name: default})[option.name] == default
            if option.type in ("int", "float"):
                with pytest.raises(UserError, match=option.name):
                    attack.options({option.name: math.inf})
            if option.name in ("steps", "max_iter"):
                with pytest.raises(UserError, match="at least 1, not 0"):
                    attack.options({option.name: 0})
        assert not attack.batched
