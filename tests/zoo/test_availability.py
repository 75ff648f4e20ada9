import importlib.util
import re

import pytest
import yaml

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.card_files import packaged
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.zoo import catalog
from rdc_bench.zoo.availability import STATES, availability
from rdc_bench.zoo.loading import load_denoiser
from rdc_bench.zoo.parts import find_card


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty working directory's folder of models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def rows():
    return {row["name"]: row for row in catalog.models()}


def test_every_packaged_card_is_sound_and_has_a_state():
    listed = rows()
    names = {path.stem for path in packaged("models").glob("*.yaml")}
    assert names <= set(listed)
    for name in names:
        assert listed[name]["state"] in STATES, listed[name]["why"]
        assert listed[name]["why"]
        assert "\n" not in listed[name]["why"]


@pytest.mark.parametrize(
    ("name", "state", "why"),
    [
        ("rdc-fashion-mnist", "bundled", "bundled"),
        ("standard-cifar10", "bundled", "bundled"),
        ("rdc-edm-cifar10", "needs weights", r"rdc-bench models convert edm-cifar10-32x32-uncond-vp\.pkl.*-cond-vp\.pkl"),
        (
            "dc-edm-restricted-imagenet",
            "needs weights",
            r"https://nvlabs-fi-cdn\.nvidia\.com/edm/.*imagenet-64x64-cond-adm\.pkl",
        ),
        ("jem-cifar10", "reported only", "not in this package"),
    ],
)
def test_the_list_says_what_is_missing_and_what_would_mend_it(models, name, state, why):
    row = rows()[name]
    assert (row["state"], row["runnable"]) == (state, state == "bundled")
    assert re.search(why, row["why"]), row["why"]


@pytest.mark.parametrize("name", ["dc-edm-cifar10", "rdc-edm-cifar10", "lm-wrn-70-16-cifar10", "pat-self-cifar10"])
def test_what_is_not_here_is_one_line_when_loaded_and_before_a_run_starts(models, name):
    for use in (lambda: rdc_bench.load_model(name), lambda: make_plan(RunConfig(models=(name,), n=1))):
        with pytest.raises(UserError, match=f"model '{name}' cannot be run here: ") as caught:
            use()
        assert "\n" not in str(caught.value)
    assert list(models.iterdir()) == []


def test_a_denoiser_that_is_not_here_says_so_too(models):
    with pytest.raises(UserError, match=r"'edm-cifar10-cond-vp' cannot be run here: .*models convert"):
        load_denoiser("edm-cifar10-cond-vp")


def test_a_model_of_robustbench_is_cached_once_its_file_lies_there(models, monkeypatch):
    loaded = find_card("at-edm-linf-cifar10")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert availability(loaded).state == "downloadable"
    assert "pip install 'rdc-bench[robustbench]'" in availability(loaded).why
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert availability(loaded).state == "downloadable"
    path = models / "cifar10" / "Linf" / "Wang2023Better_WRN-70-16.pt"
    assert "Wang2023Better_WRN-70-16.pt" in availability(loaded).why
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert availability(loaded) == ("cached", "")


def test_a_card_in_a_folder_of_its_own_hides_the_packaged_one(models):
    """As ``rdc-bench models convert FILE models/NAME`` makes it; then the packaged cards that name it are runnable."""
    card = yaml.safe_load((packaged("models") / "edm-cifar10-cond-vp.yaml").read_text())
    card["model"]["weights"] = {"file": "model.safetensors", "sha256": "0" * 64}
    folder = models / "edm-cifar10-cond-vp"
    folder.mkdir()
    (folder / "edm-cifar10-cond-vp.yaml").write_text(yaml.safe_dump(card))
    (folder / "another.yaml").write_text("not a card")
    assert availability(find_card("dc-edm-cifar10")).state == "needs weights"
    (folder / "model.safetensors").write_bytes(b"")
    assert availability(find_card("dc-edm-cifar10")).state == "local"
    assert rows()["dc-edm-cifar10"]["runnable"]
    assert "another" not in rows()
