"""Models that are not what they seem: mended and said, or refused in one line; honest models are left alone."""

import sys
import textwrap
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.autograd import grad  # by this name it must be seen as well
from torch.nn import functional as F

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks.gradient import differentiated, evaluate, gradient_kind
from rdc_bench.attacks.losses import margin
from rdc_bench.cards import Reported
from rdc_bench.catalog import models as catalogue
from rdc_bench.cli import main
from rdc_bench.evaluation.admission import IMAGES, admit
from rdc_bench.evaluation.judge import predictions
from rdc_bench.evaluation.mending import Mended, mended
from rdc_bench.evaluation.metering import metered
from rdc_bench.evaluation.reported import reported_otherwise
from rdc_bench.loading import MODELS
from rdc_bench.networks import ResNet18, SmallResNet
from rdc_bench.randomness import common_draws, draws_for, normal, row_keys
from rdc_bench.results.admission import Admission
from rdc_bench.results.store import RunFolder

X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % 4
WEIGHT = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def linear(x):
    return x.flatten(1) @ WEIGHT.T.to(x)


class Tiny(nn.Module):
    """A linear classifier with something done to it."""

    def __init__(self, function=linear, **attributes):
        super().__init__()
        self.function = function
        self.calls = 0
        for name, value in attributes.items():
            setattr(self, name, value)
        self.eval()

    def forward(self, x):
        return self.function(x)


def admitted(model, n=6):
    return admit(model, X[:n], Y[:n], name="it", num_classes=4, device=torch.device("cpu"), seed=0)


def refused(model, match):
    with pytest.raises(UserError, match=match) as caught:
        admitted(model)
    assert "\n" not in str(caught.value)
    assert "model 'it'" in str(caught.value)


# --- honest models -------------------------------------------------------------------------------------------------------


def test_an_honest_model_is_left_as_it_is():
    model = Tiny()
    found = admitted(model)
    assert found.model is model
    facts = found.admission
    assert (facts.remarks, facts.draws, facts.needed_draws, facts.agreement) == ([], "none", 1, None)
    assert facts.nonzero_gradients
    assert facts.deterministic
    assert facts.no_optimization_loop
    assert facts.finite
    assert facts.calls_agree
    assert facts.copies_agree
    assert facts.batch_independent
    assert facts.agrees_with_gradient
    assert not facts.writes_input
    assert not facts.training_mode


def test_a_randomised_model_that_keeps_the_contract_is_left_as_it_is():
    model = Tiny(lambda x: linear(x + 0.01 * normal(row_keys(len(x)), x.shape[1:])), stochastic=True)
    found = admitted(model)
    assert found.model is model
    facts = found.admission
    assert (facts.draws, facts.needed_draws, facts.remarks) == ("image", 1, [])
    assert facts.agreement == pytest.approx(1.0)
    assert not facts.calls_agree
    assert not facts.deterministic
    assert facts.batch_independent
    assert facts.repeatable


@pytest.mark.parametrize("network", [SmallResNet(1, 4), ResNet18(num_classes=4)])
def test_a_resnet_is_left_as_it_is_though_it_normalises_by_batch_in_training(network):
    x = X if isinstance(network, SmallResNet) else F.interpolate(X.repeat(1, 3, 1, 1), size=(32, 32))
    network.eval().requires_grad_(False)
    before = network(x)
    found = admit(network, x, Y, name="it", num_classes=4, device=torch.device("cpu"), seed=0)
    assert found.model is network
    assert torch.equal(found.model(x), before)
    assert found.admission.remarks == []
    assert found.admission.batch_independent


RUNNABLE = [row["name"] for row in catalogue() if row["runnable"] and row["dataset"] == "fashion-mnist"]
QUICK = [name for name in RUNNABLE if not name.startswith(("rdc", "dc", "lm"))]


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNNABLE])
def test_every_bundled_model_is_left_as_it_is_and_needs_one_draw(name):
    data = rdc_bench.load_dataset("fashion-mnist", "test", IMAGES)
    model = rdc_bench.load_model(name)
    keys = [(0, i, "here") for i in range(2)]
    with torch.no_grad(), draws_for(keys):
        before = rdc_bench.load_model(name)(data.images[:2])
    with metered(model) as meter:
        found = admit(model, data.images, data.labels, name=name, num_classes=10, device=torch.device("cpu"), seed=0)
    assert found.model is model
    with torch.no_grad(), draws_for(keys):
        assert torch.equal(found.model(data.images[:2]), before)
    facts = found.admission
    assert (facts.remarks, facts.needed_draws) == ([], 1)
    assert facts.cost <= 32
    assert facts.nonzero_gradients
    assert facts.deterministic == (name in QUICK)
    assert facts.no_optimization_loop == (not name.startswith(("rdc", "lm")))
    if name in QUICK:
        assert meter.forward + meter.backward == facts.cost


# --- what can be mended --------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", ["hidden", "logits"])


@dataclass
class Answer:
    features: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda f: (f, 3), "returns a tuple: its first element"),
        (lambda f: [f, f * 0], "returns a list: its first element"),
        (lambda f: {"loss": 0, "logits": f}, "returns a dict: its 'logits'"),
        (lambda f: Answer(f * 0, f), "returns an Answer: its logits"),
        (lambda f: Pair(f * 0, f), "returns a Pair: its logits"),
        (lambda f: f.double(), "float64"),
        (lambda f: f.half(), "float16"),
        (lambda f: (f.bfloat16(),), "bfloat16"),
    ],
)
def test_answers_that_hold_logits_are_read(wrap, said):
    found = admitted(Tiny(lambda x: wrap(linear(x))))
    logits = found.model(X)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, linear(X), rtol=1e-2, atol=0.05)
    assert said in "; ".join(found.admission.remarks)
    assert not found.admission.stochastic
    assert evaluate(found.model, X, Y, margin, 1).gradient.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_with_weights_of_another_type_get_images_of_that_type(dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).to(dtype)
    found = admitted(network)
    assert found.model(X).dtype == torch.float32
    assert found.model(X).shape == (6, 4)
    assert f"takes images as {str(dtype)[6:]}" in found.admission.remarks[-2]
    assert evaluate(found.model, X, Y, margin, 1).gradient.dtype == torch.float32


def test_a_model_that_writes_into_its_input_gets_copies():
    found = admitted(Tiny(lambda x: linear(x.mul_(0.5))))
    assert found.admission.writes_input
    x = X.clone()
    first = found.model(x)
    assert torch.equal(x, X)
    assert torch.equal(found.model(x), first)
    assert evaluate(found.model, X, Y, margin, 1).gradient.any()


def test_training_mode_is_left_and_said():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)).train()
    found = admitted(network)
    assert found.admission.mended == ["was in training mode: put into eval mode"]
    assert not found.admission.training_mode
    assert found.admission.deterministic
    assert found.model is network


def test_a_model_that_goes_back_to_training_mode_is_said_so():
    class Back(nn.Sequential):
        def forward(self, x):
            self.train()
            return super().forward(x)

    found = admitted(Back(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)).eval())
    assert found.admission.training_mode
    assert found.admission.stochastic
    assert any("stays in training mode" in remark for remark in found.admission.remarks)


def resized(x):
    """Random resizing and padding, drawn once for the batch."""
    size, left = int(torch.randint(5, 9, ())), int(torch.randint(-3, 4, ()))
    small = F.interpolate(x, size=(size, size), mode="bilinear")
    return linear(F.pad(small, (left, 8 - size - left, 0, 8 - size)))


def numpy_noise(x):
    return linear(x) + torch.from_numpy(np.random.normal(size=(len(x), 4))).float()


RANDOM = {
    "randn": lambda x: linear(x + 0.3 * torch.randn_like(x)),
    "dropout": lambda x: linear(F.dropout(x, 0.3, training=True)),
    "numpy": numpy_noise,
    "per batch": resized,
    "noise of a batch and of images": lambda x: linear(x + 0.2 * torch.randn(1) + 0.1 * torch.randn_like(x)),
    "one keyed draw a batch": lambda x: linear(x + 0.3 * normal(row_keys(len(x))[:1], x.shape[1:])),
    "keyed without the copy": lambda x: linear(x + 0.3 * normal([key[:-1] for key in row_keys(len(x))], x.shape[1:])),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("kind", RANDOM)
def test_random_models_get_draws_that_belong_to_images_and_repeat(kind, declared):
    found = admitted(Tiny(RANDOM[kind], **({"stochastic": True} if declared else {})))
    facts = found.admission
    batch = kind in ("per batch", "one keyed draw a batch", "keyed without the copy")
    assert facts.draws == ("batch" if batch else "image")
    assert facts.repeatable
    assert facts.agrees_with_gradient
    assert not facts.deterministic
    assert found.model.stochastic
    assert any("without saying" in remark for remark in facts.remarks) != declared
    keys = [(7, i, "judge") for i in range(6)]
    with torch.no_grad(), draws_for(keys):
        logits = found.model(X.repeat(3, 1, 1, 1)).unflatten(0, (3, 6))
    assert not torch.allclose(logits[0], logits[1])  # copies are other draws
    with torch.no_grad(), draws_for(keys[2:4]):
        torch.testing.assert_close(found.model(X[2:4].repeat(3, 1, 1, 1)).unflatten(0, (3, 2)), logits[:, 2:4])
    with torch.no_grad(), draws_for(keys), common_draws(6):
        torch.testing.assert_close(found.model(X), found.model(X))
    with torch.no_grad():
        assert not torch.equal(found.model(X), found.model(X))  # nothing is announced: fresh entropy


def test_a_random_model_leaves_the_callers_generators_alone():
    model = admitted(Tiny(RANDOM["randn"])).model
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model(X)
    assert torch.equal(torch.rand(2), expected)


def test_randomness_that_nothing_controls_is_said():
    own = torch.Generator()
    found = admitted(Tiny(lambda x: linear(x) + torch.randn(len(x), 4, generator=own)))
    assert not found.admission.repeatable
    assert found.admission.agrees_with_gradient is None
    assert found.model.stochastic
    assert any("nothing controls" in remark for remark in found.admission.remarks)


def test_a_seed_of_its_own_makes_a_deterministic_model_of_images_shown_one_by_one():
    def seeded(x):
        torch.manual_seed(0)
        return linear(x + 0.3 * torch.randn_like(x))

    found = admitted(Tiny(seeded))
    facts = found.admission
    assert facts.calls_agree
    assert not facts.copies_agree
    assert facts.deterministic
    assert facts.by_rows
    assert not found.model.stochastic
    torch.testing.assert_close(found.model(X)[3:], found.model(X[3:]))
    assert any("place in the batch" in remark for remark in facts.remarks)


def test_draws_that_disagree_ask_for_more_of_them():
    def masked(x):
        return linear(x * (torch.rand_like(x) > 0.5))

    noise = admitted(Tiny(lambda x: linear(x) + 4 * torch.randn(len(x), 4), stochastic=True)).admission
    masks = admitted(Tiny(masked, stochastic=True)).admission
    calm = admitted(Tiny(lambda x: linear(x) + 0.01 * torch.randn(len(x), 4), stochastic=True)).admission
    assert 1 < masks.needed_draws <= 16
    assert masks.agreement < 0.6
    assert 1 < noise.needed_draws <= 16  # though one gradient is as good as another where the rival is the same
    assert calm.needed_draws == 1


# --- gradients -----------------------------------------------------------------------------------------------------------


def more_steps_when_judged(x):
    for _ in range(1 if torch.is_grad_enabled() else 5):
        x = x - 0.1 * torch.sign(x - 0.5)
    return linear(x)


def noisy_when_differentiated(x):
    return linear(x) + (torch.randn(len(x), 4) if torch.is_grad_enabled() else 0)


@pytest.mark.parametrize("function", [more_steps_when_judged, noisy_when_differentiated])
def test_another_answer_under_gradients_is_said_and_counts_as_an_approximation(function):
    found = admitted(Tiny(function))
    assert found.admission.agrees_with_gradient is False
    assert found.admission.deterministic
    assert found.model.gradient == "bpda"
    assert gradient_kind(found.model, {}) == gradient_kind(found.model, {"gradient": "exact"}) == "bpda"
    assert any("approximation" in remark for remark in found.admission.remarks)


class WrongInfinity(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.inf


def detached(x):
    with torch.no_grad():
        return linear(x)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (detached, "none"),
        (lambda x: linear(x.detach()), "none"),
        (lambda x: linear(x.detach()) + 0 * x.sum(), "zero"),
        (lambda x: linear((4 * x).round() / 4), "zero"),
        (lambda x: linear(WrongInfinity.apply(x)), "not finite"),
    ],
)
def test_gradients_that_are_none_are_facts_and_no_refusal(function, kind):
    found = admitted(Tiny(function))
    assert found.admission.gradient == kind
    assert not found.admission.nonzero_gradients
    assert len(found.admission.remarks) == 1


def by_grad(x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (g,) = grad(linear(leaf).square().sum(), leaf)
    return linear(x - 0.01 * g.sign())


def by_backward(x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        linear(leaf).square().sum().backward()
    return linear(x - 0.01 * leaf.grad.sign())


def by_func(x):
    return linear(x - 0.01 * torch.func.grad(lambda z: linear(z).square().sum())(x).sign())


@pytest.mark.parametrize("function", [by_grad, by_backward, by_func])
def test_an_optimisation_loop_is_seen_however_gradients_are_taken(function):
    found = admitted(Tiny(function))
    assert not found.admission.no_optimization_loop
    assert found.admission.remarks == []  # a fact for a table, no fault


def test_logits_that_are_not_finite_on_an_image_are_a_fact():
    def broken(x):
        return linear(x).masked_fill((x.flatten(1).sum(dim=1) == X[1].sum())[:, None], torch.nan)

    found = admitted(Tiny(broken))
    assert not found.admission.finite
    assert found.admission.deterministic
    assert found.admission.batch_independent
    assert any("not finite" in remark for remark in found.admission.remarks)


# --- what cannot be mended -----------------------------------------------------------------------------------------------


def raises(x):
    raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")


def normalised_by_batch(x):
    return linear((x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + 0.1))


def by_size(x):
    return linear(x) if len(x) > 1 else linear(1 - x)


class Remembers(Tiny):
    def forward(self, x):
        if not hasattr(self, "first"):
            self.first = linear(x)
        return self.first[: len(x)]


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: linear(x)[:, :1], r"shape \(4, 1\).*4 classes"),
        (lambda x: linear(x)[:, 0], r"shape \(4,\).*4 classes"),
        (lambda x: linear(x).argmax(dim=1), "int64.*not logits"),
        (lambda x: linear(x) > 0, "bool.*not logits"),
        (lambda x: linear(x)[:, :3], r"shape \(4, 3\).*4 classes"),
        (lambda x: linear(x)[:, :, None, None], "shape"),
        (lambda x: linear(x).squeeze(), r"shape \(4,\) for 1 image"),
        (lambda x: linear(x).sum(), "shape"),
        (lambda x: linear(x)[:1], "shape"),
        (raises, "raises RuntimeError.*4×1×8×8.*mat1 and mat2"),
        (lambda x: None, "a NoneType, not logits"),
        (lambda x: {"scores": linear(x)}, "a dict, not logits"),
        (lambda x: (), "a tuple, not logits"),
        (lambda x: linear(x).tolist(), "a list, not logits"),
        (normalised_by_batch, "depends on the batch"),
        (lambda x: linear(x) + linear(x.flip(0)), "depends on the batch"),
        (by_size, "alone than in a batch"),
        (lambda x: linear(F.pad(x, (1, 1, 1, 1))), "raises RuntimeError"),
    ],
)
def test_what_cannot_be_mended_is_one_line(function, match):
    refused(Tiny(function), match)


def test_a_binary_logit_is_refused_with_what_would_be_right():
    with pytest.raises(UserError, match=r"shape \(4, 1\).*binary logit z, return \(-z, z\)"):
        admit(Tiny(lambda x: linear(x)[:, :1]), X, Y % 2, name="it", num_classes=2, device=torch.device("cpu"), seed=0)


def test_batch_statistics_in_eval_mode_are_refused():
    refused(nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(64, 4)), "batch statistics")


def test_a_random_model_with_batch_statistics_is_refused_too():
    refused(Tiny(lambda x: normalised_by_batch(x + 0.05 * torch.randn_like(x)), stochastic=True), "batch")


@pytest.mark.parametrize("layer", [nn.LazyBatchNorm2d, lambda: nn.LazyConv2d(1, 1)])
def test_weights_that_come_with_the_first_call_are_refused(layer):
    refused(nn.Sequential(layer(), nn.Flatten(), nn.Linear(64, 4)), "first call")


def test_a_model_that_remembers_its_first_answer_is_refused():
    refused(Remembers(), "batch|memory")


# --- the wrapper, and its record -----------------------------------------------------------------------------------------


def test_the_record_rebuilds_the_wrapper():
    model = Tiny(lambda x: (RANDOM["randn"](x).double(),))
    found = admitted(model)
    again = mended(model, Admission.model_validate_json(found.admission.model_dump_json()))
    assert isinstance(again, Mended)
    keys = [(1, i) for i in range(6)]
    assert torch.equal(predictions(found.model, X, keys, 5), predictions(again, X, keys, 5))


def test_the_wrapper_lets_attacks_choose_the_gradient_and_meters_count():
    class Part(nn.Module):
        is_network = True
        gradient = "exact"

        def forward(self, x):
            return linear(x)

        def differentiated(self, gradient):
            part = Part()
            part.gradient = gradient
            return part

    model = mended(nn.Sequential(Part(), Doubled()), admitted(nn.Sequential(Part(), Doubled()).eval()).admission)
    assert isinstance(model, Mended)
    assert gradient_kind(model, {"gradient": "surrogate"}) == "surrogate"
    assert torch.equal(differentiated(model, "bpda")(X), model(X))
    with metered(model) as meter:
        evaluate(model, X, Y, margin, 1)
    assert (meter.forward, meter.backward) == (6, 6)


class Doubled(nn.Module):
    def forward(self, x):
        return x.double()


def test_cost_is_bounded_and_counted():
    for function in (linear, RANDOM["per batch"], noisy_when_differentiated):
        shown = []

        def counted(x, function=function, shown=shown):
            shown.append(len(x) * (2 if torch.is_grad_enabled() else 1))
            return function(x)

        cost = admitted(Tiny(counted)).admission.cost
        assert sum(shown) == cost <= 32


def test_one_image_is_enough():
    assert admitted(Tiny(), n=1).model.function is linear


# --- in a run ------------------------------------------------------------------------------------------------------------


class OnFashion(nn.Module):
    """The toy of the other tests, with something done to it."""

    def __init__(self, toy, function):
        super().__init__()
        self.toy, self.function = toy(), function

    def forward(self, x):
        return self.function(self.toy, x)


def shifted_per_batch(toy, x):
    return toy(x.roll(int(torch.randint(-4, 5, ())), dims=3))


def global_noise(toy, x):
    return {"logits": toy(x) + 20 * torch.randn(len(x), 10)}


def run(tmp_path, model, **options):
    asked = {"eps": "8/255", "attacks": ["pgd", "fgsm"], "n": 20, "repeats": 3, "out": tmp_path / "results"}
    return rdc_bench.run(models=[model], **{**asked, **options})


@pytest.mark.parametrize("function", [shifted_per_batch, global_noise])
def test_an_undeclared_random_model_is_judged_by_many_draws_and_verified(tmp_path, registered, monkeypatch, function):
    registered.model("sly", lambda: OnFashion(registered.toy, function))
    lines = []
    done = run(tmp_path, "sly", say=lines.append)
    (line,) = lines
    assert line.startswith("model sly: ")
    assert "treated as randomised" in line
    assert "\n" not in line
    (entry,) = done.manifest.models
    assert (entry.stochastic, entry.repeats) == (True, 3)
    assert entry.admission.remarks == line.removeprefix("model sly: ").split("; ")
    judged = RunFolder(done.path).records().query("attack == 'pgd'")
    assert (judged.groupby("index")["adversarial_prediction"].nunique() > 1).any()  # draws differ
    assert rdc_bench.verify(done.path).ok
    monkeypatch.setattr("rdc_bench.evaluation.run.SHARD", {True: 7, False: 7})
    again = RunFolder(run(tmp_path / "shards", "sly").path).records()
    columns = ["index", "attack", "repeat", "clean_prediction", "adversarial_prediction"]
    pd.testing.assert_frame_equal(RunFolder(done.path).records()[columns], again[columns])


def test_nothing_is_said_of_honest_models_and_their_records_have_the_facts(tmp_path, toys):
    lines = []
    done = rdc_bench.run(models=toys, attacks=["fgsm"], n=3, repeats=2, out=tmp_path, say=lines.append)
    assert [entry.admission.draws for entry in done.manifest.models] == ["none", "image"]
    assert all("draws a step" not in line for line in lines)
    assert all(entry.notes == [] for entry in done.manifest.models)


def test_a_gradient_of_another_function_is_recorded_as_an_approximation(tmp_path, registered):
    def easier(toy, x):
        return toy(x if torch.is_grad_enabled() else x.round(decimals=1))

    registered.model("lazy", lambda: OnFashion(registered.toy, easier))
    done = run(tmp_path, "lazy")
    assert done.manifest.models[0].gradient == "bpda"
    assert set(RunFolder(done.path).records().query("attack != 'clean'")["gradient"]) == {"bpda"}
    assert rdc_bench.verify(done.path).ok


def test_a_model_that_is_refused_stops_the_run_before_anything_is_written(tmp_path, toys, registered):
    registered.model("seven", lambda: OnFashion(registered.toy, lambda toy, x: toy(x)[:, :7]))
    with pytest.raises(UserError, match=r"model 'seven' returns a tensor of shape \(4, 7\)"):
        rdc_bench.run(models=["toy", "seven"], attacks=["fgsm"], n=4, out=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_noise_that_cannot_be_fixed_is_no_model_with_fixed_noise(tmp_path, registered):
    def declared():
        model = OnFashion(registered.toy, global_noise)
        model.stochastic = True
        return model

    registered.model("loud", declared)
    with pytest.raises(UserError, match=r"'loud \(fixed noise\)': its noise cannot be fixed"):
        run(tmp_path, "loud", fixed_noise=True)
    assert not (tmp_path / "results").exists()


def test_on_the_command_line_it_is_one_line_and_exit_code_2(tmp_path, registered, monkeypatch, capsys):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        textwrap.dedent("""
            import torch, rdc_bench

            class Classes(torch.nn.Module):
                def forward(self, x):
                    return x.flatten(1)[:, :10].argmax(dim=1)

            rdc_bench.model("classes", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10)(Classes)
        """)
    )
    out = tmp_path / "results"
    monkeypatch.setattr(sys, "argv", ["rdc-bench", "run", "--plugin", str(plugin), "--model", "classes", "--out", str(out)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: model 'classes' returns int64, as classes are, not logits: return what they are chosen by\n"
    )
    assert not out.exists()


def test_a_set_of_threats_looks_at_a_model_once_and_says_it_once(tmp_path, registered, monkeypatch):
    registered.model("sly", lambda: OnFashion(registered.toy, global_noise))
    lines = []
    monkeypatch.setattr("rdc_bench.evaluation.plan.members", lambda name: ["linf", "l2"])
    monkeypatch.setattr("rdc_bench.evaluation.run.admit", lambda *a, **k: (lines.append("looked"), admit(*a, **k))[1])
    done = rdc_bench.run(models=["sly"], threat="all", attacks=["fgsm"], n=2, repeats=2, out=tmp_path, say=lines.append)
    assert len(done.runs) == 2
    assert len(lines) == 2
    assert lines[0] == "looked"


def reporting(*percents):
    card = rdc_bench.load_model("standard-fashion-mnist").card
    figures = [Reported(metric="clean", percent=percent, source="a paper") for percent in percents]
    return card.model_copy(update={"reported": figures})


@pytest.mark.parametrize(
    ("measured", "n", "notes"),
    [(0.9, 100, 0), (0.8, 32, 0), (0.55, 100, 1), (0.9, 10_000, 0), (0.86, 10_000, 1), (1.0, 10_000, 1), (0.0, 1, 1)],
)
def test_a_reported_clean_accuracy_far_from_the_measured_one_is_noted(measured, n, notes):
    found = reported_otherwise(reporting("93.20"), measured, n)
    assert len(found) == notes
    assert all("93.20 % (a paper)" in note and "normalisation" in note for note in found)


def test_the_note_is_said_when_clean_images_are_done_and_kept_in_the_entry(tmp_path, registered):
    registered.model("toy", registered.toy)
    card, factory = MODELS.get("toy")
    del MODELS._entries["toy"]
    MODELS.register("toy", (card.model_copy(update={"reported": reporting("93.20").reported}), factory), "a test")
    heard = []
    done = run(tmp_path, "toy", say=heard.append, progress=lambda step: heard.append(step.attack))
    (note,) = done.manifest.models[0].notes
    assert heard[heard.index("clean") - 1] == f"model toy: {note}"
    assert "93.20 %" in note


@pytest.mark.parametrize("made", [lambda x: x, None, "a model"])
def test_a_function_that_makes_no_module_is_named(registered, made):
    registered.model("odd", lambda: made)
    with pytest.raises(UserError, match=r"model 'odd': its function made an? \w+, not a torch.nn.Module"):
        rdc_bench.load_model("odd")
