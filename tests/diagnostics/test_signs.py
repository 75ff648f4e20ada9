"""Planted defences must be caught, each by the checks that are there to catch it; honest models must pass every one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rdc_bench.attacks.agreement import WANTED, needed
from rdc_bench.diagnostics import gradient_agreement
from rdc_bench.diagnostics.gradient_agreement import AFFORDED, LIMIT
from rdc_bench.diagnostics.subject import make_subject
from rdc_bench.threats import LpThreat


class Planted(nn.Module):
    """A network with something done to its input or output."""

    def __init__(self, network, wrong, stochastic=False, gradient="exact"):
        super().__init__()
        self.network, self.wrong, self.stochastic, self.gradient = network, wrong, stochastic, gradient

    def forward(self, x):
        return self.wrong(self.network, x)


class StraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity, as BPDA has it."""

    @staticmethod
    def forward(ctx, x):
        return (6 * x).round() / 6

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def quantized(network, x):
    return network((6 * x).round() / 6)


def detached(network, x):
    with torch.no_grad():
        return network(x)


def saturated(network, x):
    return 1e4 * network(x)


def straight_through(network, x):
    return network(StraightThrough.apply(x))


def half_detached(network, x):
    """The gradient misses what the lower half of the image does."""
    upper, lower = x.split(x.shape[2] // 2, dim=2)
    return network(torch.cat([upper, lower.detach()], dim=2))


def randomly_resized(network, x):
    """Each image is shrunk to a random size and put at a random place, by a generator of the defence's own."""
    out = []
    for image in x:
        size = int(torch.randint(6, 9, (), generator=OWN))
        left, top = (int(torch.randint(0, 9 - size, (), generator=OWN)) for _ in range(2))
        small = F.interpolate(image[None], size=(size, size), mode="bilinear")
        out.append(F.pad(small, (left, 8 - size - left, top, 8 - size - top)))
    return network(torch.cat(out))


OWN = torch.Generator()


def failed(verdicts):
    return {name for name, verdict in verdicts.items() if verdict == "fail"}


@pytest.mark.parametrize("model", ["standard", "robust"])
def test_honest_networks_pass_every_check(problem, model):
    other = problem.robust if model == "standard" else problem.standard
    verdicts, checks = problem.examined(getattr(problem, model), [other])
    assert set(verdicts.values()) == {"pass"}, {n: c.figures for n, c in checks.items() if c.verdict != "pass"}
    assert len(verdicts) == 9


def test_an_honest_diffusion_classifier_passes_every_check(problem):
    verdicts, checks = problem.examined(problem.diffusion_classifier("shared"), [problem.standard], n=8)
    assert set(verdicts.values()) == {"pass"}, {n: c.figures for n, c in checks.items() if c.verdict != "pass"}
    assert checks["repeatable-draws"].figures["change under other draws"] > 1e-3  # it is randomised indeed


@pytest.mark.parametrize(
    ("plant", "caught_by"),
    [
        (quantized, {"zero-gradients", "convergence", "growing-eps"}),
        (detached, {"zero-gradients", "finite-differences", "convergence", "growing-eps", "transfer"}),
        (saturated, {"zero-gradients"}),
        (straight_through, {"finite-differences"}),
        (half_detached, {"finite-differences"}),
    ],
)
def test_planted_deterministic_defences_are_caught(problem, plant, caught_by):
    verdicts, _ = problem.examined(Planted(problem.standard, plant), [problem.standard])
    assert caught_by <= failed(verdicts)


def test_a_declared_approximation_is_a_warning(problem):
    verdicts, checks = problem.examined(Planted(problem.standard, straight_through, gradient="bpda"), [problem.standard])
    assert verdicts["finite-differences"] == "warn"
    assert "BPDA" in checks["finite-differences"].says


def test_noise_that_is_fresh_for_each_class_is_caught(problem):
    found = {}
    for noise in ("shared", "fresh"):
        model = problem.diffusion_classifier(noise)
        found[noise] = gradient_agreement.examine(
            make_subject(model, problem.test_x, problem.test_y, LpThreat("linf", 0.05), 0, {})
        )
    assert found["fresh"].verdict == "fail"
    assert found["shared"].verdict == "pass"


def test_a_random_resize_that_nothing_controls_is_caught(problem):
    OWN.manual_seed(0)
    verdicts, _ = problem.examined(Planted(problem.standard, randomly_resized, stochastic=True), n=16)
    assert {"repeatable-draws", "finite-differences"} <= failed(verdicts)


def test_randomness_that_is_not_declared_is_caught(problem):
    def noisy(network, x):
        return network(x) + 0.1 * torch.randn(len(x), 4)

    verdicts, checks = problem.examined(Planted(problem.standard, noisy), n=16)
    assert verdicts["repeatable-draws"] == "fail"
    assert "stochastic" in checks["repeatable-draws"].says
    assert checks["repeatable-draws"].figures["change under the same draws"] == 0  # torch's global generator is seeded for it


def test_the_limit_is_the_cosine_at_which_the_draws_that_are_afforded_do():
    """Against a simulation: the mean of ``needed(c)`` noisy gradients has the wanted cosine with the true one."""
    assert needed(LIMIT) == pytest.approx(AFFORDED)
    g = torch.Generator().manual_seed(0)
    true = torch.zeros(20_000, dtype=torch.float64)
    true[0] = 1.0
    noise = ((1 - LIMIT) / LIMIT / len(true)) ** 0.5
    draws = true + noise * torch.randn(AFFORDED, len(true), generator=g, dtype=torch.float64)
    assert torch.cosine_similarity(draws[0], draws[1], dim=0) == pytest.approx(LIMIT, abs=0.02)
    assert torch.cosine_similarity(draws.mean(dim=0), true, dim=0) == pytest.approx(WANTED, abs=0.01)
