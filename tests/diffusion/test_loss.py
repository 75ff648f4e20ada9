from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from rdc_bench.diffusion.loss import adversarial_shift, bayes_loss


def denoisings(images: int, classes: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(images + classes)
    denoised = torch.randn(images, classes, *shape, generator=g, dtype=torch.float64)
    z = torch.randn(images, *shape, generator=g, dtype=torch.float64)
    return denoised, z, torch.rand(images, generator=g, dtype=torch.float64) + 0.5


@pytest.mark.parametrize("classes", [2, 5])
def test_the_shift_follows_the_gradient_of_bayes_rule(classes: int) -> None:
    denoised, z, sigma = denoisings(4, classes, (3, 4, 4))
    z.requires_grad_(True)
    (gradient,) = torch.autograd.grad(bayes_loss(denoised, z, sigma, 0.5), z)
    assert torch.equal(adversarial_shift(denoised, z, sigma, 0.5, 0.03), 0.06 * gradient.sign())


def test_between_two_classes_no_shift_is_worse() -> None:
    denoised, z, sigma = denoisings(1, 2, (1, 2, 3))
    worst = bayes_loss(denoised, z + adversarial_shift(denoised, z, sigma, 0.5, 0.05), sigma, 0.5)
    corners = [torch.tensor(signs, dtype=z.dtype).reshape(z.shape) for signs in itertools.product((-0.1, 0.1), repeat=6)]
    every = torch.stack([bayes_loss(denoised, z + corner, sigma, 0.5) for corner in corners])
    assert worst.item() == pytest.approx(every.max().item())
    assert worst > bayes_loss(denoised, z, sigma, 0.5)
