import math

import pytest
import torch

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.diffusion import GaussianDenoiser, OptimalDenoiser


@pytest.fixture
def gaussians():
    torch.manual_seed(0)
    return 0.2 * torch.randn(3, 1, 4, 4, dtype=torch.float64)


def keys(n):
    return [(3, i) for i in range(n)]


def test_logits_are_the_bayes_posterior_of_gaussian_classes(gaussians):
    """The elbo weighting is in nats: for Gaussian classes the logits' differences are the log-likelihood ratios.

    With ``D = (s² z_σ + σ² μ)/(s²+σ²)`` the error is ``(σ²(μ−z) + s²σ n)/(s²+σ²)``, so the integral of the differences between
    classes over all σ is ``‖z−μ_y‖²/2s²`` exactly; what remains is quadrature and Monte-Carlo error.
    """
    s = 0.5
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    z = 2 * x - 1
    truth = -(z[:, None] - gaussians).flatten(2).square().sum(2) / (2 * s**2)
    classifier = DiffusionClassifier(
        GaussianDenoiser(gaussians, s), 3, levels=1500, grid="log-uniform", log_mean=-0.5, log_std=2.5, weighting="elbo"
    )
    with draws_for(keys(4)):
        logits = torch.stack([classifier(x) for _ in range(6)])
    error = logits.log_softmax(2) - truth.log_softmax(1)
    standard_error = error.std(0) / math.sqrt(6)
    assert error.mean(0).abs().max() < 4 * standard_error.max() + 0.02
    assert (logits.mean(0).argmax(1) == truth.argmax(1)).all()


def test_two_pass_gradient_equals_plain_autograd(gaussians):
    classifier = DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, levels=7, rows_per_pass=4)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    upstream = torch.randn(3, 3, dtype=torch.float64)
    upstream[0, 2] = upstream[1] = 0.0  # classes without a weight are skipped, also whole images

    two_pass = x.clone().requires_grad_(True)
    with draws_for(keys(3)):
        logits = classifier(two_pass)
    (logits * upstream).sum().backward()

    plain = x.clone().requires_grad_(True)
    every_class = torch.arange(3).expand(3, -1)
    call_keys = [(*key, 0, 0) for key in keys(3)]
    total = sum(
        torch.zeros(3, 3, dtype=torch.float64).index_add(0, image, loss)
        for image, loss in classifier.losses(plain, call_keys, every_class)
    )
    torch.testing.assert_close(logits, -total)
    (-total * upstream).sum().backward()
    torch.testing.assert_close(two_pass.grad, plain.grad)


@pytest.mark.parametrize("noise", ["shared", "fresh", "fixed"])
def test_one_image_does_not_depend_on_its_batch(gaussians, noise):
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64)
    classifier = DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, levels=5, noise=noise, rows_per_pass=3)
    with draws_for(keys(4)):
        together = classifier(x)
    for i in range(4):
        with draws_for([(3, i)]):
            torch.testing.assert_close(classifier(x[i : i + 1])[0], together[i])
    with draws_for(keys(4)[::-1]):
        torch.testing.assert_close(classifier(x.flip(0)).flip(0), together)


def test_what_kind_of_noise_means(gaussians):
    denoiser, x = GaussianDenoiser(gaussians, 0.5), torch.rand(2, 1, 4, 4, dtype=torch.float64)
    shared = DiffusionClassifier(denoiser, 3, levels=4)
    fresh = DiffusionClassifier(denoiser, 3, levels=4, noise="fresh")
    fixed = DiffusionClassifier(denoiser, 3, levels=4, noise="fixed")
    assert shared.stochastic
    assert not fixed.stochastic
    torch.testing.assert_close(fixed(x), fixed(x))
    assert not torch.allclose(shared(x), shared(x))

    def spread(model):
        logits = torch.stack([model(x) for _ in range(40)])
        return (logits[..., 0] - logits[..., 1]).std(0).mean()

    assert spread(fresh) > 2 * spread(shared)


def test_antithetic_noise_removes_most_of_the_variance(gaussians):
    """With Gaussian classes the differences of losses are linear in the noise, so equal levels in pairs cancel it entirely."""
    denoiser, x = GaussianDenoiser(gaussians, 0.5), torch.rand(2, 1, 4, 4, dtype=torch.float64)

    def spread(antithetic, levels):
        model = DiffusionClassifier(denoiser, 3, levels=levels, antithetic=antithetic)
        logits = torch.stack([model(x) for _ in range(40)])
        return (logits[..., 0] - logits[..., 1]).std(0).mean()

    equal = torch.tensor([1.0, 1.0, 2.0, 2.0])
    assert spread(True, equal) < 1e-6 * spread(False, equal)
    assert spread(True, 8) < 0.6 * spread(False, 8)


def test_seeding_torch_does_not_fix_the_draws(gaussians):
    classifier = DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, levels=4)
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    first = classifier(x)
    torch.manual_seed(0)
    assert not torch.equal(first, classifier(x))


def test_copies_of_a_batch_get_independent_draws(gaussians):
    classifier = DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, levels=4)
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    with draws_for(keys(2)):
        logits = classifier(x.repeat(3, 1, 1, 1)).unflatten(0, (3, 2))
    assert len({round(v, 12) for v in logits[:, 0, 0].tolist()}) == 3


def test_levels_may_be_given(gaussians):
    sigma = torch.tensor([0.5, 1.0, 2.0])
    classifier = DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, levels=sigma)
    torch.testing.assert_close(classifier.levels.sigma, sigma.double())
    assert classifier(torch.rand(1, 1, 4, 4, dtype=torch.float64)).shape == (1, 3)


def test_temperature_divides_the_logits(gaussians):
    denoiser, x = GaussianDenoiser(gaussians, 0.5), torch.rand(2, 1, 4, 4, dtype=torch.float64)
    plain = DiffusionClassifier(denoiser, 3, levels=4, noise="fixed")(x)
    torch.testing.assert_close(DiffusionClassifier(denoiser, 3, levels=4, noise="fixed", temperature=4.0)(x), plain / 4)


def test_denoisers_without_heads_and_with_them_agree():
    torch.manual_seed(0)
    images, labels = torch.rand(9, 1, 4, 4, dtype=torch.float64), torch.arange(9) % 3
    single = OptimalDenoiser(images, labels)

    class WithHeads(torch.nn.Module):
        label_dim, sigma_data = 3, 0.5

        def for_classes(self, z, sigma, classes):
            return torch.stack([single(z, sigma, column) for column in classes.unbind(1)], dim=1)

    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    with draws_for(keys(2)):
        first = DiffusionClassifier(single, 3, levels=4)(x)
    with draws_for(keys(2)):
        second = DiffusionClassifier(WithHeads(), 3, levels=4)(x)
    torch.testing.assert_close(first, second)


def test_unknown_noise_is_named(gaussians):
    with pytest.raises(UserError, match="shared"):
        DiffusionClassifier(GaussianDenoiser(gaussians, 0.5), 3, noise="sharde")


@pytest.mark.parametrize("noise", ["fixed", "fresh"])
def test_class_labels_choose_among_the_classes_of_the_denoiser(gaussians, noise):
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    denoiser = GaussianDenoiser(gaussians, 0.5)
    every = DiffusionClassifier(denoiser, 3, levels=8, noise="fixed")
    chosen = DiffusionClassifier(denoiser, 2, class_labels=[2, 0], levels=8, noise=noise)
    with draws_for(keys(2)):
        if noise == "fixed":
            assert torch.allclose(chosen(x), every(x)[:, [2, 0]])
        logits = chosen(x.requires_grad_(True))
    (logits[:, 0] - logits[:, 1]).sum().backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(UserError, match="2 labels for 3 classes"):
        DiffusionClassifier(denoiser, 3, class_labels=[2, 0])
