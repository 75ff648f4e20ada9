"""Recipes: what they refuse, what they write, and that the union over steps is that over attacks of one run."""

import json

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

import rdc_bench
from rdc_bench import UserError
from rdc_bench.cards import card_names, find_model_card
from rdc_bench.cli import group
from rdc_bench.reproduction import find_recipe, list_recipes
from rdc_bench.reproduction.recipe import Variant
from rdc_bench.reproduction.reproduce import reproduce
from rdc_bench.reproduction.variants import write_variant

TRIAL = {
    "name": "trial",
    "title": "A trial",
    "question": "Does it work?",
    "dataset": "fashion-mnist",
    "threat": "linf",
    "eps": "1/20000",
    "n": 40,
    "repeats": 3,
    "steps": [
        {"label": "weak", "models": ["toy", "noisy"], "attacks": ["fgsm"]},
        {"label": "strong", "models": ["noisy"], "attacks": ["pgd"], "options": {"steps": 2}},
    ],
}


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        path = tmp_path / "trial.yaml"
        path.write_text(yaml.safe_dump({**TRIAL, **changes}))
        return str(path)

    return write


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipes_name_what_exists(name, tmp_path):
    recipe = find_recipe(name)
    known = {*card_names("models"), *recipe.variants}
    for step in recipe.steps:
        assert set(step.models) <= known
        for attack in step.attacks:
            assert set(step.options) <= set(rdc_bench.attacks.ATTACKS.get(attack).defaults)
    for title, variant in recipe.variants.items():
        changed = find_model_card(str(write_variant(title, variant, tmp_path))).card
        original = find_model_card(variant.of).card
        assert changed.model != original.model
        assert changed.dataset == original.dataset == recipe.dataset


def test_union_over_steps_is_that_of_one_run(recipe, toys, tmp_path):
    done = reproduce(recipe(), out=tmp_path / "results")
    by_model = {row.model: row for row in done.rows}
    assert list(by_model["toy"].by_step) == ["weak"]
    assert list(by_model["noisy"].by_step) == ["weak", "strong"]
    once = rdc_bench.run(
        ["noisy"], "linf", "1/20000", ["fgsm", "pgd"], attack_options={"steps": 2}, n=40, repeats=3, out=tmp_path / "one"
    )
    together, expected = by_model["noisy"].together, once.models[0]
    for sense in ("clean", "avg", "majority", "worst"):
        assert getattr(together, sense) == getattr(expected, sense)
    assert 0 < together.avg.value <= min(step.avg.value for step in by_model["noisy"].by_step.values())
    table = pd.read_csv(tmp_path / "results" / "trial" / "table.csv")
    assert len(table) == 2 + 3
    assert (tmp_path / "results" / "trial" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "| noisy" in (tmp_path / "results" / "trial" / "table.md").read_text()


def test_what_is_done_is_not_done_again(recipe, toys, tmp_path):
    shards = []
    reproduce(recipe(), out=tmp_path, progress=shards.append)
    again = []
    reproduce(recipe(), out=tmp_path, progress=again.append)
    assert shards
    assert not again
    fewer = reproduce(recipe(), out=tmp_path, n=4, progress=again.append)
    assert fewer.n == 4
    assert again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": []}, "steps"),
        ({"stepps": []}, "stepps"),
        ({"n": 0}, "n"),
        (
            {"steps": [TRIAL["steps"][0], dict(TRIAL["steps"][0], attacks=["pgd"], models=["noisy"])]},
            "two steps called 'weak'",
        ),
        ({"variants": {"unused": {"of": "dc-fashion-mnist", "set": {"levels": 2}, "says": "few"}}}, "in no step"),
        ({"steps": [{"label": "a", "models": ["toyy"], "attacks": ["pgd"]}]}, "toyy"),
        ({"steps": [{"label": "a", "models": ["toy"], "attacks": ["pdg"]}]}, "pgd"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(recipe, toys, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        reproduce(recipe(**changes), out=tmp_path / "results")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["levls", "likelihood_maximization.steps", "noise"])
def test_a_variant_takes_known_settings_only(tmp_path, setting):
    with pytest.raises(UserError, match="variant 'other'"):
        write_variant("other", Variant(of="dc-fashion-mnist", set={setting: 1}, says="other"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_command_line(recipe, toys, tmp_path):
    path = recipe()
    result = CliRunner().invoke(group, ["reproduce", path, "--out", str(tmp_path / "results"), "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [m["model"] for m in document["models"]] == ["toy", "noisy"]
    assert set(document["models"][1]["steps"]) == {"weak", "strong"}
    with pytest.raises(UserError, match="survival-fashion-mnist"):
        find_recipe("survival-fashion-mnits")
