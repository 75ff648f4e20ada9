"""Which values options take, by enumeration over all attacks, and what is said of the others."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import torch
from annotated_types import Gt, Lt, MultipleOf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field
from torch import Tensor

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks import ATTACKS, Attack
from rdc_bench.attacks.options import Count, Loss, Option
from rdc_bench.cli import main
from rdc_bench.evaluation.plan import RunConfig, make_plan
from rdc_bench.threats import LpThreat

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

ATTACK_NAMES = [name for name in ATTACKS.names() if ATTACKS.entry(name).origin == "rdc_bench"]
OPTIONS = [
    pytest.param(ATTACKS.get(name), option, id=f"{name}-{option.name}")
    for name in ATTACK_NAMES
    for option in ATTACKS.get(name).settings
]
NUMBERS = [case for case in OPTIONS if case.values[1].type in ("int", "float")]
LINF = LpThreat("linf", 8 / 255)


def refused(attack: Attack, name: str, value: Any) -> str:
    """What is said of a value that an attack does not take."""
    with pytest.raises(UserError) as caught:
        attack.options({name: value})
    message = str(caught.value)
    assert "\n" not in message
    assert attack.name in message
    assert name in message
    return message


def in_range(option: Option, value: float) -> bool:
    """Whether the range that a listing shows for a number holds ``value``."""
    span = re.fullmatch(r"(\S+) to (\S+)", option.allowed)
    if span:
        return float(span[1]) <= value <= float(span[2])
    holds: dict[str, Callable[[float, float], bool]] = {
        "at least": lambda v, bound: v >= bound,
        "more than": lambda v, bound: v > bound,
        "at most": lambda v, bound: v <= bound,
        "less than": lambda v, bound: v < bound,
    }
    parts = [re.fullmatch(r"(\D+) (\S+)", part) for part in option.allowed.split(" and ")]
    return all(part is not None and holds[part[1]](value, float(part[2])) for part in parts)


@pytest.mark.parametrize(("attack", "option"), OPTIONS)
def test_every_option_is_described_and_takes_its_default(attack: Attack, option: Option) -> None:
    assert option.help, f"the documentation of {attack.name} says nothing of {option.name}"
    assert not option.help.endswith(".")
    assert option.type in ("int", "float", "str", "bool")
    assert option.allowed or option.type == "bool" or option.name == "sources", "a range or choices"
    assert attack.options({option.name: option.default}) == attack.defaults
    assert attack.options({})[option.name] == option.default


@pytest.mark.parametrize("name", ATTACK_NAMES)
@pytest.mark.parametrize("num_classes", [4, 1000])
def test_defaults_go_together(name: str, num_classes: int) -> None:
    attack = ATTACKS.get(name)
    attack.check_together(attack.defaults, LINF, num_classes)
    assert [option.name for option in attack.settings] == list(attack.defaults)


@pytest.mark.parametrize(("attack", "option"), NUMBERS)
def test_what_is_no_number_is_refused(attack: Attack, option: Option) -> None:
    for value in (math.nan, math.inf, -math.inf, "abc", "3", "", True, False, None, [1], {"a": 1}, date(2026, 1, 1), 1j):
        message = refused(attack, option.name, value)
        assert option.allowed in message
        assert ("whole number" if option.type == "int" else "finite number") in message
    if option.type == "int":
        assert "not 2.5" in refused(attack, option.name, 2.5)
        refused(attack, option.name, 2.0)


@pytest.mark.parametrize(("attack", "option"), NUMBERS)
def test_just_the_numbers_in_range_are_taken(attack: Attack, option: Option) -> None:
    numbers = [-(10**30), -3, -1, 0, 1, 2, 4, 5, 10**6]
    numbers += [] if option.type == "int" else [-0.5, -1e-9, 1e-9, 0.5, 1 - 1e-9, 1 + 1e-9, 1.5]  # type: ignore[list-item]
    taken = [number for number in numbers if in_range(option, number)]
    assert 0 < len(taken) < len(numbers)
    for number in numbers:
        if number in taken:
            # As given: an integer for a float stays one, so that a run is found again.
            assert attack.options({option.name: number})[option.name] is number
        else:
            assert option.allowed in refused(attack, option.name, number)


@pytest.mark.parametrize(
    ("name", "option", "right"),
    [
        ("pgd", "steps", lambda v: isinstance(v, int) and v >= 1),
        ("pgd", "step_size", lambda v: v >= 0),
        ("apgd-ce", "rho", lambda v: 0 <= v <= 1),
        ("fmn", "gamma", lambda v: 0 < v < 1),
        ("fmn", "step_size", lambda v: v > 0),
        ("corruptions", "draws", lambda v: isinstance(v, int) and 1 <= v <= 4),
    ],
)
@given(value=st.one_of(st.integers(), st.integers(-3, 7), st.floats(), st.floats(-1, 2)))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_any_number_is_taken_or_refused_rightly(name: str, option: str, right: Callable[[Any], bool], value: float) -> None:
    attack = ATTACKS.get(name)
    if math.isfinite(value) and right(value):
        assert attack.options({option: value})[option] is value
    else:
        refused(attack, option, value)


@given(
    value=st.none() | st.booleans() | st.text() | st.binary() | st.lists(st.text()) | st.dictionaries(st.text(), st.integers())
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_else_is_refused_in_one_line(value: Any) -> None:
    refused(ATTACKS.get("pgd"), "steps", value)


@pytest.mark.parametrize(("attack", "option"), [case for case in OPTIONS if case.values[1].type == "str"])
def test_just_the_choices_are_taken(attack: Attack, option: Option) -> None:
    choices = re.split(", | or ", option.allowed) if option.allowed else ["a-model"]
    for choice in choices:
        assert attack.options({option.name: choice})[option.name] == choice
    for value in (3, 0.5, None, ["ce"], math.nan):
        assert option.allowed in refused(attack, option.name, value)
    if option.allowed:
        message = refused(attack, option.name, "foo")
        assert "'foo'" in message
        assert all(choice in message for choice in choices)
        close = refused(attack, option.name, choices[0][:-1] + "_")
        assert repr(choices[0]) in close or len(choices[0]) < 4


def make_attack(registered: Any, function: Any) -> Attack:
    registered.attack("mine", function)
    return ATTACKS.get("mine")


def test_a_plugin_declares_types_ranges_and_choices(registered: Any) -> None:
    def mine(
        model: Any,
        x: Tensor,
        y: Tensor,
        threat: Any,
        *,
        generator: torch.Generator,
        steps: Count = 5,
        share: Annotated[float, Gt(0), Lt(1)] = 0.5,
        level: Annotated[int, Field(ge=2, le=4)] = 2,
        even: Annotated[int, MultipleOf(2)] = 2,
        mode: Literal["fast", "slow"] = "fast",
        sizes: tuple[int, ...] = (3, 5),
        bound: float | None = None,
        strict: bool = True,
        start: int = 0,
    ) -> Tensor:
        """Nothing.

        Options:
            steps: how many.
            share: kept; the rest
                is dropped
            level, even: whole numbers. mode: fast or slow: as you like.
        """
        return x

    attack = make_attack(registered, mine)
    assert attack.settings == [
        ("steps", "int", "at least 1", 5, "how many"),
        ("share", "float", "more than 0 and less than 1", 0.5, "kept; the rest is dropped"),
        ("level", "int", "2 to 4", 2, "whole numbers"),
        ("even", "int", "", 2, "whole numbers"),
        ("mode", "str", "fast or slow", "fast", "fast or slow: as you like"),
        ("sizes", "list", "", (3, 5), ""),
        ("bound", "float or null", "", None, ""),
        ("strict", "bool", "", True, ""),
        ("start", "int", "", 0, ""),
    ]
    values = {
        "steps": 1,
        "share": 0.1,
        "level": 4,
        "even": 4,
        "mode": "slow",
        "sizes": [1],
        "bound": 2,
        "strict": False,
        "start": -1,
    }
    assert attack.options(values) == values
    assert attack.options({"bound": None})["bound"] is None
    assert refused(attack, "steps", -3) == "attack mine: steps is a whole number, at least 1, not -3"
    assert refused(attack, "share", 1) == "attack mine: share is a finite number, more than 0 and less than 1, not 1"
    assert refused(attack, "level", 5) == "attack mine: level is a whole number, 2 to 4, not 5"
    assert refused(attack, "strict", "yes") == "attack mine: strict is true or false, not 'yes'"
    assert refused(attack, "bound", math.nan) == "attack mine: bound is a finite number or null, not nan"
    assert "multiple of 2" in refused(attack, "even", 3)
    assert "Did you mean 'slow'" in refused(attack, "mode", "slo")
    refused(attack, "sizes", [1.5])


def test_what_a_plugin_leaves_open_is_told_by_the_default(registered: Any) -> None:
    class Mine:
        def __call__(  # type: ignore[no-untyped-def]
            self, model, x, y, threat, *, generators, scale=1.0, times=3, steps=5, name="a", on=False, other=None,
            odd: Unknown = 2.0, max_queries: int = 10, warm_steps: int = 0,
        ):  # fmt: skip
            return x

    attack = make_attack(registered, Mine)
    assert [option[1:3] for option in attack.settings] == [
        ("float", ""),
        ("int", ""),
        ("int", "at least 1"),  # a count by its name
        ("str", ""),
        ("bool", ""),
        ("any", ""),
        ("float", ""),  # its annotation is for type checkers alone
        ("int", "at least 1"),
        ("int", ""),  # none at all is its default
    ]
    values = {"scale": 2, "times": 0, "steps": 1, "name": "b", "on": True, "other": [1, "a"], "odd": 1, "warm_steps": 0}
    assert attack.options(values) == {**attack.defaults, **values}
    for name, wrong in {
        "scale": "big", "times": 1.5, "steps": 0, "name": 3, "on": 1, "other": math.inf, "odd": "x", "max_queries": -1
    }.items():  # fmt: skip
        refused(attack, name, wrong)


def test_a_relation_between_options_is_declared_with_the_attack(registered: Any, toys: list[str]) -> None:
    def reachable(options: Mapping[str, Any], threat: Any, num_classes: int) -> str:
        if options["target"] >= num_classes:
            return f"target is less than the number of classes, {num_classes}, not {options['target']}"
        return f"eps is {threat.eps:g}: radius is too large" if options["radius"] > threat.eps else ""

    @rdc_bench.attack("related", threats=["linf"], check=reachable)
    def related(
        model: Any, x: Tensor, y: Tensor, threat: Any, *, generators: Any, target: int = 0, radius: float = 0.0
    ) -> Tensor:
        """Nothing."""
        return x

    def plan(**options: Any) -> Any:
        return make_plan(RunConfig(models=tuple(toys), attacks=("related",), eps="0.1", n=2, attack_options=options))

    assert plan(target=9, radius=0.1).attacks[0].options == {"target": 9, "radius": 0.1}
    with pytest.raises(UserError, match=r"^attack related: target is less than the number of classes, 10, not 10$"):
        plan(target=10)
    with pytest.raises(UserError, match=r"^attack related: eps is 0.1: radius is too large$"):
        plan(radius=0.2)


@pytest.mark.parametrize(("name", "least"), [("apgd-dlr", 3), ("apgd-t", 4), ("autoattack", 4), ("autoattack-rand", 3)])
def test_attacks_on_the_ratio_of_logits_need_classes(name: str, least: int) -> None:
    attack = ATTACKS.get(name)
    attack.check_together(attack.defaults, LINF, least)
    with pytest.raises(UserError, match=f"^attack {name}: at least {least} classes are needed, and there are {least - 1}"):
        attack.check_together(attack.defaults, LINF, least - 1)


@pytest.mark.parametrize("name", [n for n in ATTACK_NAMES if any("dlr" in o.allowed for o in ATTACKS.get(n).settings)])
def test_so_does_their_loss_wherever_it_is_a_choice(name: str) -> None:
    attack = ATTACKS.get(name)
    options = attack.options({"loss": "dlr"})
    attack.check_together(options, LINF, 3)
    attack.check_together(attack.options({"loss": "margin"}), LINF, 2)
    with pytest.raises(UserError, match=f"^attack {name}: loss=dlr: at least 3 classes"):
        attack.check_together(options, LINF, 2)


def test_a_type_takes_its_demand_on_classes_along(registered: Any) -> None:
    def mine(model: Any, x: Tensor, y: Tensor, threat: Any, *, generators: Any, loss: Loss = "ce") -> Tensor:
        return x

    with pytest.raises(UserError, match="loss=dlr"):
        make_attack(registered, mine).check_together({"loss": "dlr"}, LINF, 2)


VALUES = [
    ("linf", "pgd", {"steps": "-3"}, "steps is a whole number, at least 1, not -3"),
    ("linf", "square-eot", {"queries": "-1"}, "queries is a whole number, at least 1, not -1"),
    ("perceptual", "lpa", {"searches": "0"}, "searches is a whole number, at least 1, not 0"),
    ("linf", "selective", {"chosen": "9", "draws": "2"}, "chosen is at most draws, and 9 is more than 2"),
    ("linf", "pgd", {"steps": "abc"}, "steps is a whole number, at least 1, not 'abc'"),
    ("linf", "pgd", {"loss": "foo"}, "unknown loss of attack pgd 'foo'"),
    ("linf", "apgd-ce", {"eot": "0"}, "eot is a whole number, at least 1, not 0"),
    ("l2", "pgd", {"step_size": ".nan"}, "step_size is a finite number, at least 0, not nan"),
    ("l2", "pgd", {"step_size": "nan"}, "step_size is a finite number, at least 0, not nan"),
    ("linf", "pgd", {"step_size": "-1e-3"}, "step_size is a finite number, at least 0, not -0.001"),
    ("linf", "pgd", {"step_size": ".inf"}, "step_size is a finite number, at least 0, not inf"),
    ("linf", "pgd", {"steps": "2.5"}, "steps is a whole number, at least 1, not 2.5"),
    ("linf", "pgd", {"steps": "true"}, "steps is a whole number, at least 1, not True"),
    ("l1", "apgd-l1", {"restarts": ""}, "restarts is a whole number, at least 1, not None"),
    ("stadv", "stadv", {"learning_rate": "0"}, "learning_rate is a finite number, more than 0, not 0"),
    ("linf", "lagrange", {"sigma_min": "0.7"}, "sigma_min is at most sigma_max, and 0.7 is more than 0.6"),
    ("linf", "square", {"loss": "dlr"}, "unknown loss of attack square 'dlr'. One of: margin, ce."),
    ("linf", "pgd", {"steps": "[1"}, "steps=[1': '[1' is no number"),
    ("unseen", "stadv", {"tau": "-1"}, "tau is a finite number, at least 0, not -1"),
]


@pytest.mark.parametrize(("threat", "attack", "options", "said"), VALUES)
def test_the_command_line_refuses_before_anything_is_computed(
    threat: str,
    attack: str,
    options: dict[str, str],
    said: str,
    registered: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registered.model("untouched", lambda: pytest.fail("the model was made"))
    arguments = [argument for key, value in options.items() for argument in ("--attack-arg", f"{key}={value}")]
    run = [
        "run",
        "--threat",
        threat,
        "--model",
        "untouched",
        "--attack",
        attack,
        "--out",
        str(tmp_path / "results"),
        *arguments,
    ]
    monkeypatch.setattr(sys, "argv", ["rdc-bench", *run])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("attack", "text", "value"),
    [
        ("pgd", "steps=3", 3),
        ("pgd", "step_size=1e-3", 0.001),
        ("pgd", "step_size=1", 1),
        ("pgd", "loss=ce", "ce"),
        ("lagrange", "condition=true", "true"),  # which YAML reads as a truth value
        ("lagrange", "condition=none", "none"),
        ("transfer", "sources=standard-fashion-mnist, at-l2-fashion-mnist", "standard-fashion-mnist, at-l2-fashion-mnist"),
    ],
)
def test_what_the_command_line_takes(
    attack: str, text: str, value: Any, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run(**options: Any) -> None:
        seen.update(options["attack_options"])
        raise UserError("that will do")

    monkeypatch.setattr("rdc_bench.api.run", run)
    monkeypatch.setattr(sys, "argv", ["rdc-bench", "run", "--attack", attack, "--attack-arg", text])
    with pytest.raises(SystemExit, match="2"):
        main()
    (name,) = seen
    settled = ATTACKS.get(attack).options(seen)[name]
    assert settled == value
    assert type(settled) is type(value)


def test_an_integer_for_a_float_keeps_its_place_in_a_runs_identity(toys: list[str]) -> None:
    config = RunConfig(models=("toy",), attacks=("pgd",), n=4, attack_options={"step_size": 1})
    (planned,) = make_plan(config).attacks
    written = '["pgd", {"steps": 20, "step_size": 1, "loss": "margin", "eot": 1, "restarts": 1}]'
    assert json.dumps(planned.identity) == written
