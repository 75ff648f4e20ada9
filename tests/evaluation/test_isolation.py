"""No model and no attack can reset the random numbers of another, or of whoever runs the evaluation."""

import random

import numpy as np
import pandas as pd
import pytest
import torch

import rdc_bench
from rdc_bench.core.global_generators import model_apart, preserved
from rdc_bench.results.store import RunFolder

CPU = torch.device("cpu")


def reseed():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.fixture
def meddlers(registered):
    """A model and an attack that seed all global generators, and innocents that draw from them."""

    class Reseeding(registered.toy):
        def forward(self, x):
            reseed()
            drawn()
            return super().forward(x)

    def reseeding(model, x, y, threat, *, generator):
        reseed()
        model(x)
        return x

    def walk(model, x, y, threat, *, generator, steps: int = 4):
        """Random signs from the global generators; the model is called in between."""
        for _ in range(steps):
            if (model(x).argmax(dim=1) != y).all():
                break
            x = threat.project(x, x + 0.3 * threat.eps * torch.randn_like(x).sign() * random.choice([0.5, 1]))
        return x

    seen = []

    def watching(model, x, y, threat, *, generator):
        seen.append(drawn())
        model(x)
        seen.append(drawn())
        return x

    registered.model("reseeding", Reseeding)
    registered.model("same", lambda: registered.toy())
    for name, function in (("reseeding", reseeding), ("walk", walk), ("watching", watching)):
        registered.attack(name, function)
    return seen


def evaluate(out, models, attacks):
    return RunFolder(rdc_bench.run(models=models, attacks=attacks, n=8, eps="8/255", repeats=2, out=out).path)


def same(first: pd.DataFrame, second: pd.DataFrame) -> None:
    columns = [c for c in first.columns if c != "seconds"]
    pd.testing.assert_frame_equal(first[columns].reset_index(drop=True), second[columns].reset_index(drop=True))


def test_results_do_not_depend_on_the_company(tmp_path, toys, meddlers):
    models = ["noisy", "same"]
    alone = evaluate(tmp_path / "alone", models, ["walk"]).records()
    crowd = evaluate(tmp_path / "crowd", ["reseeding", *models], ["reseeding", "walk"]).records()
    crowd = crowd[crowd["model"].isin(models) & (crowd["attack"] != "reseeding")]
    same(alone, crowd)


def test_a_model_that_seeds_cannot_make_an_attack_repeat_its_draws(tmp_path, meddlers):
    """The models differ in nothing but seeding, so a random walk must find the same images on both."""
    folder = evaluate(tmp_path, ["same", "reseeding"], ["walk"])
    images = folder.images()
    torch.testing.assert_close(images["same"], images["reseeding"], rtol=0, atol=0)
    assert len({float(image.sum()) for image in images["same"] - rdc_bench.load_dataset("fashion-mnist", "test", 8).images}) > 1


def test_an_attack_sees_its_own_stream(tmp_path, meddlers):
    evaluate(tmp_path / "a", ["reseeding"], ["watching"])
    first = meddlers.copy()
    reseed()
    meddlers.clear()
    evaluate(tmp_path / "b", ["reseeding"], ["watching"])
    assert first
    assert meddlers == first  # whatever was drawn before
    assert len(set(first)) == len(first)  # and never the same twice


@pytest.mark.parametrize("attack", ["reseeding", "walk", "square", "autoattack-rand", "pgd"])
def test_the_callers_generators_are_as_before(tmp_path, toys, meddlers, attack):
    reseed()
    expected = drawn()
    reseed()
    evaluate(tmp_path, ["noisy", "reseeding"], [attack])
    assert drawn() == expected


def test_a_model_that_draws_goes_on_from_call_to_call_even_after_an_error():
    class Drawing(torch.nn.Module):
        def forward(self, x):
            if len(x) == 0:
                raise ValueError("no images")
            return torch.rand(1) + 0 * x

    model, calls = Drawing(), []
    for reseeded in (False, True):
        got = []
        with preserved(CPU), model_apart(model, CPU, seed=3):
            for size in (1, 0, 1):
                if reseeded:
                    torch.manual_seed(5)
                before = torch.get_rng_state()
                if size:
                    got.append(float(model(torch.zeros(size))))
                else:
                    with pytest.raises(ValueError, match="no images"):
                        model(torch.zeros(size))
                assert torch.equal(torch.get_rng_state(), before)
        calls.append(got)
    assert calls[0] == calls[1]
    assert calls[0][0] != calls[0][1]
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_models_and_attacks_see_float32_as_it_is_and_the_caller_keeps_its_setting(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    class Watching(registered.toy):
        def forward(self, x):
            seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
            return super().forward(x)

    registered.model("watching", Watching)
    torch.set_float32_matmul_precision("high")
    try:
        done = rdc_bench.run(["watching"], "linf", attacks=["fgsm"], n=2, out=tmp_path)
        rdc_bench.verify(done.path)
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {(False, "highest")}
