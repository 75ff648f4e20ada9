import pytest
import torch

from rdc_bench.defenses import RDC, LikelihoodMaximization
from rdc_bench.diffusion import OptimalDenoiser
from rdc_bench.randomness import draws_for


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
