import torch

from rdc_bench.defenses import DiffusionClassifier
from rdc_bench.diffusion import GaussianDenoiser, OptimalDenoiser


def test_optimal_denoiser_minimises_the_loss_over_its_training_set():
    """No small change of the denoised image may lower the expected error (the loss is convex in it)."""
    torch.manual_seed(0)
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    denoiser = OptimalDenoiser(images, labels)
    z_noisy, sigma = torch.randn(1, 1, 2, 2), torch.tensor([0.8])
    best = denoiser(z_noisy, sigma, torch.tensor([1]))
    z = 2 * images[3:] - 1
    posterior = torch.softmax(-(z_noisy - z).flatten(1).square().sum(1) / (2 * 0.64), 0)

    def loss(d):
        return (posterior * (d - z).flatten(1).square().sum(1)).sum()

    for _ in range(20):
        assert loss(best) < loss(best + 0.05 * torch.randn_like(best))


def test_unconditional_uses_every_class_and_labels_may_be_one_hot():
    torch.manual_seed(0)
    denoiser = OptimalDenoiser(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    z, sigma = torch.randn(3, 1, 2, 2), torch.full((3,), 0.7)
    torch.testing.assert_close(denoiser(z, sigma, torch.zeros(3, 2)), denoiser(z, sigma))
    torch.testing.assert_close(denoiser(z, sigma, torch.eye(2)[[1, 0, 1]]), denoiser(z, sigma, torch.tensor([1, 0, 1])))


def test_optimal_classifier_is_robust_when_classes_are_separated():
    """Corollary 3.3 of the paper: right on every training image moved by less than half the classes' distance."""
    torch.manual_seed(0)
    dark, bright = 0.3 * torch.rand(8, 1, 4, 4), 0.7 + 0.3 * torch.rand(8, 1, 4, 4)
    images, labels = torch.cat([dark, bright]), torch.tensor([0] * 8 + [1] * 8)
    classifier = DiffusionClassifier(OptimalDenoiser(images, labels), 2, levels=8, log_mean=-1.0, log_std=0.5)
    moved = images + torch.where(labels == 0, 0.15, -0.15)[:, None, None, None]
    assert (classifier(moved).argmax(1) == labels).all()


def test_gaussian_denoiser_is_the_posterior_mean():
    """By Tweedie's formula ``D = z_σ + σ² ∇ log p_σ(z_σ)`` with ``p_σ = N(μ, s² + σ²)``."""
    torch.manual_seed(0)
    means = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    denoiser = GaussianDenoiser(means, 0.4)
    z, sigma = torch.randn(1, 1, 2, 2, dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    score = -(z - means[1]) / (0.4**2 + 0.81)
    torch.testing.assert_close(denoiser(z, sigma, torch.tensor([1])), z + 0.81 * score)
