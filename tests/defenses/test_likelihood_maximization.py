import pytest
import torch

from rdc_bench import UserError
from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses import RDC, LikelihoodMaximization
from rdc_bench.diffusion import OptimalDenoiser


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    return OptimalDenoiser(torch.rand(5, 1, 4, 4, dtype=torch.float64), torch.arange(5))


def images(n=3):
    torch.manual_seed(1)
    return torch.rand(n, 1, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("optimizer", ["adam", "normalized"])
def test_stays_in_the_ball_and_in_range_and_lowers_the_loss(denoiser, optimizer):
    maximization = LikelihoodMaximization(denoiser, steps=5, step_size=0.02, eta=0.06, optimizer=optimizer, draws=8)
    x = images()
    moved = maximization(x)
    assert (moved - x).abs().max() <= 0.06 + 1e-12
    assert ((moved >= 0) & (moved <= 1)).all()
    judge = LikelihoodMaximization(denoiser, draws=200)
    keys = [("judge", i) for i in range(len(x))]
    assert sum(judge.objective(moved, keys, 0)) < sum(judge.objective(x, keys, 0))


def test_one_adam_step_is_the_sign_of_the_gradient(denoiser):
    maximization = LikelihoodMaximization(denoiser, steps=1, step_size=0.01, eta=1.0, noise="fixed")
    x = 0.3 + 0.4 * images()
    step = maximization(x) - x
    torch.testing.assert_close(step.abs(), torch.full_like(step, 0.01), rtol=1e-4, atol=0)


def test_bpda_moves_like_the_exact_one_and_has_an_identity_gradient(denoiser):
    exact = LikelihoodMaximization(denoiser, steps=3, step_size=0.01)
    bpda = LikelihoodMaximization(denoiser, steps=3, step_size=0.01, gradient="bpda")
    x = images().requires_grad_(True)
    with draws_for([(0, i) for i in range(3)]):
        first = exact(x)
    with draws_for([(0, i) for i in range(3)]):
        second = bpda(x)
    torch.testing.assert_close(first, second)
    upstream = torch.randn_like(second)
    torch.testing.assert_close(torch.autograd.grad(second, x, upstream)[0], upstream)
    assert not torch.allclose(torch.autograd.grad(first, x, upstream)[0], upstream)


def test_one_image_does_not_depend_on_its_batch(denoiser):
    maximization = LikelihoodMaximization(denoiser, steps=2, step_size=0.01, draws=2, rows_per_pass=3)
    x = images()
    with draws_for([(0, i) for i in range(3)]):
        together = maximization(x)
    with draws_for([(0, 1)]):
        torch.testing.assert_close(maximization(x[1:2])[0], together[1])


def test_rdc_is_the_composition(denoiser):
    maximization = LikelihoodMaximization(denoiser, steps=1, step_size=0.01, noise="fixed", gradient="bpda")
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3).double())
    rdc = RDC(maximization, classifier)
    torch.testing.assert_close(rdc(images()), classifier(maximization(images())))
    assert rdc.gradient == "bpda"
    assert not rdc.stochastic


def pulled_back(maximization, x, upstream):
    """The gradient of ``(upstream · maximization(x)).sum()``."""
    x = x.clone().requires_grad_(True)
    with draws_for([(0, i) for i in range(len(x))]):
        return torch.autograd.grad(maximization(x), x, upstream)[0]


@pytest.mark.parametrize("optimizer", ["adam", "normalized"])
def test_the_surrogates_gradient_equals_finite_differences_of_the_smooth_maximisation(denoiser, optimizer):
    """The smooth maximisation is written out here, with its normalisers frozen at those of ``x``, where they are constants."""
    steps, s, eta = 3, 0.03, 0.05
    maximization = LikelihoodMaximization(denoiser, steps=steps, step_size=s, eta=eta, optimizer=optimizer, draws=2)
    keys = [((0, i, 0, 0)) for i in range(2)]

    def slope(x, step):
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(sum(maximization.objective(x, keys, step)), x)[0]

    def smooth(x, norms):
        here, found = x, []
        for step in range(steps):
            g = slope(here, step)
            found.append(g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) / 4)  # root mean square of 16 pixels
            here = x + eta * torch.tanh((here - s * g / (norms or found)[step] - x) / eta)
        return here, found

    x, upstream = images(2), torch.randn(2, 1, 4, 4, dtype=torch.float64)
    _, norms = smooth(x, None)
    numeric = torch.zeros_like(x)
    for pixel in range(x.numel()):
        h = torch.zeros_like(x)
        h.view(-1)[pixel] = 1e-5
        difference = smooth(x + h, norms)[0] - smooth(x - h, norms)[0]
        numeric.view(-1)[pixel] = (upstream * difference).sum() / 2e-5
    found = pulled_back(maximization.differentiated("surrogate"), x, upstream)
    torch.testing.assert_close(found, numeric, rtol=1e-6, atol=1e-8)


def test_adam_masks_its_own_gradient_and_the_surrogate_does_not(denoiser):
    """With one step of Adam, even the exact gradient is BPDA's wherever the image range does not bind (the trap)."""
    x = 0.3 + 0.4 * images()
    upstream = torch.randn_like(x)
    one = LikelihoodMaximization(denoiser, steps=1)
    kinds = ("exact", "bpda", "surrogate")
    exact, bpda, surrogate = (pulled_back(one.differentiated(kind), x, upstream) for kind in kinds)
    torch.testing.assert_close(exact, bpda, rtol=0, atol=1e-6)
    relative = (surrogate - bpda).flatten(1).norm(dim=1) / bpda.flatten(1).norm(dim=1)
    assert (relative > 0.02).all()


@pytest.mark.parametrize("optimizer", ["adam", "normalized"])
def test_the_surrogate_leaves_outputs_as_they_are_and_does_not_depend_on_the_batch(denoiser, optimizer):
    maximization = LikelihoodMaximization(denoiser, steps=3, step_size=0.01, draws=2, rows_per_pass=3, optimizer=optimizer)
    view = maximization.differentiated("surrogate")
    assert view.denoiser is maximization.denoiser
    assert maximization.gradient == "exact"
    x, upstream = images(), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    with draws_for([(0, i) for i in range(3)]):
        first = maximization(x)
    with draws_for([(0, i) for i in range(3)]):
        torch.testing.assert_close(view(x), first, rtol=0, atol=0)
    together = pulled_back(view, x, upstream)
    torch.testing.assert_close(pulled_back(view, x[:1], upstream[:1]), together[:1])


def test_an_unknown_gradient_is_refused(denoiser):
    with pytest.raises(UserError, match=r"unknown gradient 'bdpa'. Did you mean 'bpda'"):
        LikelihoodMaximization(denoiser).differentiated("bdpa")
