"""Attacks choose how a defence is differentiated, and whether its noise stands still."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.attacks import ATTACKS
from rdc_bench.attacks.gradient import differentiated, gradient_kind
from rdc_bench.core.randomness import common_draws, draws_for, normal, row_keys
from rdc_bench.defenses import RDC, LikelihoodMaximization
from rdc_bench.diffusion import OptimalDenoiser
from rdc_bench.evaluation.metering import metered
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.results.store import RunFolder
from rdc_bench.threats import LpThreat

GRADIENTS = ("exact", "bpda", "surrogate")


class Wrapped(nn.Module):
    """A wrapper that knows nothing of gradients."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), model)

    @property
    def stochastic(self) -> bool:
        return self.inner[1].stochastic

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def rdc(optimizer: str = "normalized", size: int = 10, **options: Any) -> RDC:
    g = torch.Generator().manual_seed(0)
    denoiser = OptimalDenoiser(torch.rand(6, 1, size, size, generator=g), torch.arange(6))
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 10))
    with torch.no_grad():
        for p in classifier.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    options = {"steps": 3, "step_size": 0.02, "sigma": (2.0, 4.0), **options}  # where several images share the posterior
    return RDC(LikelihoodMaximization(denoiser, optimizer=optimizer, **options), classifier).requires_grad_(False)


def images(n: int = 3) -> Tensor:
    return 0.2 + 0.6 * torch.rand(n, 1, 10, 10, generator=torch.Generator().manual_seed(1))


def look(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_(True)
    with draws_for([(5, i) for i in range(len(x))]):
        logits = model(x)
    return logits.detach(), torch.autograd.grad(logits[:, 0].sum(), x)[0]


@pytest.mark.parametrize("wrap", [lambda m: m, Wrapped, lambda m: nn.Sequential(m, nn.Identity())])
def test_views_differ_in_their_gradient_alone_however_deep_the_defence_lies(wrap: Any) -> None:
    model = wrap(rdc())
    looks = {kind: look(differentiated(model, kind), images()) for kind in GRADIENTS}
    plain = look(model, images())
    torch.testing.assert_close(looks["exact"][1], plain[1], rtol=0, atol=0)
    for logits, _ in looks.values():
        torch.testing.assert_close(logits, plain[0], rtol=0, atol=1e-6)
    assert not torch.allclose(looks["exact"][1], looks["bpda"][1], atol=1e-3)
    assert not torch.allclose(looks["surrogate"][1], looks["bpda"][1], atol=1e-3)
    torch.testing.assert_close(look(model, images())[1], plain[1], rtol=0, atol=0)  # the model itself is left as it was


def test_a_view_shares_weights_and_counts_of_network_evaluations() -> None:
    model = Wrapped(rdc())
    view = differentiated(model, "surrogate")
    assert {id(p) for p in view.parameters()} == {id(p) for p in model.parameters()}
    with metered(model) as meter:
        look(view, images())
    assert meter.forward == 3
    assert meter.backward == 3
    model.inner[1].classifier.is_network = True
    model.inner[1].likelihood_maximization.denoiser.is_network = True
    with metered(model) as meter:
        look(view, images())
    forward = 3 * (3 + 3 + 3 + 1)  # true steps, surrogate steps, their Hessian products, and the classifier
    assert meter.forward == forward


def test_models_that_approximate_nothing_are_taken_as_they_are(trained: nn.Module) -> None:
    assert differentiated(trained, "bpda") is trained
    assert gradient_kind(trained, {"gradient": "surrogate"}) == "exact"
    assert gradient_kind(Wrapped(rdc()), {"gradient": "surrogate"}) == "surrogate"
    assert gradient_kind(Wrapped(rdc(gradient="bpda")), {}) == "bpda"
    assert gradient_kind(Wrapped(rdc(gradient="bpda")), {"gradient": "exact"}) == "exact"


@pytest.mark.parametrize("name", ["pgd", "apgd-ce", "apgd-dlr", "apgd-margin", "apgd-t"])
@pytest.mark.parametrize("option", [{"gradient": "bpda"}, {"gradient": "surrogate"}, {"noise": "common"}])
def test_every_choice_is_heard_and_does_not_depend_on_the_batch(name: str, option: dict[str, str], attacked: Any) -> None:
    model, threat = rdc(steps=2), LpThreat("l2", 0.5)  # under linf, signs of gradients agree where gradients differ
    x = images()
    y = model(x).argmax(dim=1)
    options = {"steps": 3, "eot": 2} | ({"n_target_classes": 2} if name == "apgd-t" else {})
    chosen = attacked(name, model, x, y, threat, **options, **option)
    assert threat.contains(x, chosen).all()
    assert not torch.equal(chosen, attacked(name, model, x, y, threat, **options))
    alone = attacked(name, model, x[1:2], y[1:2], threat, ids=[1], **options, **option)
    torch.testing.assert_close(alone[0], chosen[1], atol=1e-5, rtol=0)


def test_common_noise_is_the_same_at_every_call_and_differs_between_copies() -> None:
    def draw(copies: int = 1) -> Tensor:
        return normal(row_keys(2 * copies), (4,))

    with draws_for([(0, 0), (0, 1)]):
        before = draw()
        with common_draws(2):
            first, second, copies = draw(), draw(), draw(copies=2)
        after = draw()
    assert torch.equal(first, second)
    assert torch.equal(copies[:2], first)
    drawn = [before, first, copies[2:], after]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    with draws_for([(0, 1)]), common_draws(1):  # neither the batch nor the copies matter, only the number of the call
        row_keys(1)
    with common_draws(2):  # outside an evaluation
        assert torch.equal(draw(), draw())


def test_common_noise_attacks_a_model_whose_noise_is_fixed(noisy: nn.Module, held_out: tuple[Tensor, Tensor]) -> None:
    """PGD with common noise finds what PGD finds on the deterministic model with just that noise built in."""
    x, y = held_out
    pgd, threat = ATTACKS.get("pgd").function, LpThreat("linf", 0.06)
    keys = [("image", i) for i in range(len(x))]

    class Frozen(nn.Module):
        stochastic = True  # so that both keep the highest point rather than the first success

        def forward(self, x: Tensor) -> Tensor:
            with draws_for(keys):
                return noisy(x)

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(len(x))]

    with draws_for(keys):
        common = pgd(noisy, x, y, threat, generators=generators(), steps=8, noise="common")
    torch.testing.assert_close(common, pgd(Frozen(), x, y, threat, generators=generators(), steps=8), rtol=0, atol=0)


def test_unknown_choices_are_refused_before_anything_is_computed(toys: list[str], tmp_path: Any) -> None:
    for option, value, near in (("gradient", "surogate", "surrogate"), ("noise", "comon", "common")):
        with pytest.raises(UserError, match=f"unknown {option} of attack pgd '{value}'. Did you mean '{near}'") as caught:
            rdc_bench.run(models=toys, attacks=["pgd"], attack_options={option: value}, out=tmp_path / "results")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("kind", GRADIENTS)
def test_records_say_what_was_differentiated(kind: str, registered: Any, tmp_path: Any) -> None:
    registered.model("toy-lm", lambda: Wrapped(rdc(size=28, gradient="bpda", steps=1)))
    registered.model("toy", registered.toy)
    done = rdc_bench.run(
        models=["toy-lm", "toy"],
        attacks=["pgd", "fgsm", "square"],
        attack_options={"gradient": kind, "steps": 1, "queries": 4},
        n=8,
        repeats=1,
        out=tmp_path,
    )
    records = RunFolder(done.path).records()
    recorded = records.groupby(["model", "attack"])["gradient"].unique().map(list).to_dict()
    assert recorded["toy-lm", "pgd"] == [kind]
    assert recorded["toy-lm", "fgsm"] == ["bpda"]  # takes no such option, so it differentiates as the model says
    assert recorded["toy-lm", "square"] == ["none"]
    assert recorded["toy", "pgd"] == ["exact"]
    assert [entry.gradient for entry in done.manifest.models] == [kind, "exact"]  # the most faithful that an attack took
    (table,) = (path for path in rdc_bench.report(tmp_path, tmp_path / "report") if path.suffix == ".md")
    assert ("no attack took the exact gradient of toy-lm" in table.read_text()) == (kind != "exact")


def test_options_at_their_neutral_values_do_not_change_a_runs_identity(toys: list[str]) -> None:
    def plan(**options: Any) -> Any:
        return make_plan(RunConfig(models=("toy",), attacks=("pgd",), n=4, attack_options=options))

    assert plan().attacks[0].options["gradient"] == "exact"
    assert plan().identity == plan(gradient="exact", noise="fresh").identity
    assert len({plan(**o).identity for o in ({}, {"gradient": "bpda"}, {"gradient": "surrogate"}, {"noise": "common"})}) == 4
    assert "gradient" not in plan().attacks[0].identity[1]
