"""Randomised models beside themselves with their noise fixed."""

import pytest
import torch

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses.fixed_noise import FixedNoise, fixed_noise
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.reporting import compare
from rdc_bench.reporting.render import markdown
from rdc_bench.results.store import RunFolder

OPTIONS = {"attacks": ["pgd"], "eps": "8/255", "n": 12, "repeats": 3}


@pytest.fixture
def done(tmp_path, toys):
    return rdc_bench.run(models=toys, fixed_noise=True, out=tmp_path, **OPTIONS)


def test_the_fixed_variant_is_a_row_of_its_own_after_the_model(done):
    assert [m.model for m in done.models] == ["toy", "noisy", "noisy (fixed noise)"]
    entry = done.manifest.models[2]
    assert (entry.fixed_noise, entry.stochastic, entry.repeats) == (True, False, 1)
    assert entry.card["name"] == "noisy"
    table = RunFolder(done.path).records()
    assert set(table["model"]) == {"toy", "noisy", "noisy (fixed noise)"}
    assert "noisy (fixed noise)" in markdown(compare(done.path))
    fixed = done.models[2]
    assert fixed.avg == fixed.majority == fixed.worst


def test_it_is_attacked_as_it_is(done, toys):
    """The images stored for it are judged by the fixed noise: recomputed here from the definition."""
    folder = RunFolder(done.path)
    images, model = folder.images()["noisy (fixed noise)"], rdc_bench.load_model("noisy")
    with draws_for([("fixed",)] * 12):
        predicted = model(images).argmax(dim=1)
    rows = folder.records().query("model == 'noisy (fixed noise)' and attack == 'pgd'").sort_values("index")
    assert predicted.tolist() == rows["adversarial_prediction"].tolist()


def test_it_is_verified_and_changes_are_found(done):
    found = rdc_bench.verify(done.path)
    assert found.ok
    assert [row["model"] for row in found.models] == ["toy", "noisy", "noisy (fixed noise)"]
    assert [row["checked"] for row in found.models] == [12, 12, 12]


def test_the_other_rows_are_the_same_without_it(tmp_path, toys, done):
    plain = rdc_bench.run(models=toys, out=tmp_path / "plain", **OPTIONS)
    assert plain.path.name != done.path.name
    assert plain.manifest.identity != done.manifest.identity
    assert [m.as_json()["robust"] for m in plain.models] == [m.as_json()["robust"] for m in done.models[:2]]


def test_off_by_default_and_then_no_part_of_the_identity(toys):
    config = {"models": ("noisy",), "attacks": ("pgd",), "n": 4}
    assert [m.name for m in make_plan(RunConfig(**config)).models] == ["noisy"]
    assert make_plan(RunConfig(**config)).identity == make_plan(RunConfig(**config, fixed_noise=False)).identity


def test_without_a_randomised_model_it_is_refused(tmp_path, toys):
    with pytest.raises(UserError, match="none of the models is randomised"):
        rdc_bench.run(models=["toy"], fixed_noise=True, out=tmp_path / "results", **OPTIONS)
    assert not (tmp_path / "results").exists()


def test_a_model_of_any_kind_is_deterministic_whatever_the_batch(registered):
    model = fixed_noise(registered.toy(noise=20.0))
    assert isinstance(model, FixedNoise)
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    whole = model(x)
    torch.testing.assert_close(model(x[2:4]), whole[2:4])
    with draws_for([("other", i) for i in range(6)]):
        torch.testing.assert_close(model(x), whole)
    offset = (whole - registered.toy()(x)).std(dim=0)
    assert (offset < 1e-3).all()  # the same noise for every image


def test_the_rdc_is_fixed_in_place_so_that_adaptive_attacks_still_know_it():
    model = fixed_noise(rdc_bench.load_model("rdc-fashion-mnist"))
    assert isinstance(model, rdc_bench.defenses.RDC)
    assert not model.stochastic
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = model(x)
        torch.testing.assert_close(model(x[1:]), first[1:], rtol=1e-4, atol=1e-3)
    assert rdc_bench.load_model("rdc-fashion-mnist").stochastic
