"""Losses that train the class-conditional teacher and distil the multi-head student."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.diffusion.loss import adversarial_shift, bayes_loss, denoising_loss, distillation_loss, training_sigma
from rdc_bench.diffusion.precondition import Precond
from rdc_bench.training.loop import Loss

#: What an adversarial shift moves, and how it is found, see :func:`teacher_loss`.
Shifted = Literal["both", "target", "exact"]


def teacher_loss(
    log_mean: float,
    log_std: float,
    label_dropout: float,
    rivals: int = 0,
    bayes_weight: float = 0.0,
    bayes_eps: float = 0.0,
    shifted: Shifted = "both",
) -> Loss:
    """The EDM loss with a share ``label_dropout`` of the labels dropped, for the unconditional denoiser.

    With ``bayes_weight``, also the error of Bayes' rule (:func:`~rdc_bench.diffusion.loss.bayes_loss`) between the true class
    and ``rivals`` others drawn per image; the loss without labels is then taken on all images, with weight ``label_dropout``.

    With ``bayes_eps``, the images are shifted against Bayes' rule: adversarial training of the diffusion classifier.
    ``shifted`` says what is, and how:

    * ``both``: the image under the noise and the target, by :func:`~rdc_bench.diffusion.loss.adversarial_shift`, for one more
      forward pass. The shift takes the denoisings for constant and overlooks what moving the noisy image does to them.
    * ``target``: the target alone, by the same shift, which then overlooks nothing, for no pass more.
    * ``exact``: both, by one step along the gradient through the network (:func:`fast_shift`), for a forward and a backward
      pass more.
    """

    def loss(denoiser: Precond, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        z, sigma, z_noisy = _noisy(x, log_mean, log_std, g)
        if not bayes_weight:
            keep = (torch.rand(len(x), generator=g) >= label_dropout).to(x.device)
            labels = one_hot(y, denoiser.label_dim, z.dtype) * keep[:, None]
            return denoising_loss(denoiser(z_noisy, sigma, labels), z, sigma, denoiser.sigma_data)
        classes = _contenders(y, rivals, denoiser.label_dim, g)
        if bayes_eps and shifted != "target":
            if shifted == "both":
                with torch.no_grad():
                    unshifted = denoiser.for_classes(z_noisy, sigma, classes[:, :-1])
                shift = adversarial_shift(unshifted, z, sigma, denoiser.sigma_data, bayes_eps)
            else:
                shift = fast_shift(denoiser, z, z_noisy, sigma, classes[:, :-1], bayes_eps, g)
            z, z_noisy = z + shift, z_noisy + shift
        denoised = denoiser.for_classes(z_noisy, sigma, classes)
        if bayes_eps and shifted == "target":
            z = z + adversarial_shift(denoised[:, :-1].detach(), z, sigma, denoiser.sigma_data, bayes_eps)
        likelihood, unconditional = (denoising_loss(denoised[:, column], z, sigma, denoiser.sigma_data) for column in (0, -1))
        bayes = bayes_loss(denoised[:, :-1], z, sigma, denoiser.sigma_data)
        return (1 - label_dropout) * likelihood + label_dropout * unconditional + bayes_weight * bayes

    return loss


def fast_shift(
    denoiser: Precond, z: Tensor, z_noisy: Tensor, sigma: Tensor, classes: Tensor, eps: float, g: torch.Generator
) -> Tensor:
    """An ℓ∞ shift that raises :func:`~rdc_bench.diffusion.loss.bayes_loss` of the shifted images: FGSM from a random start.

    One step of 1.25 eps from a uniform start, projected back ("Fast is better than free", Wong et al. 2020, arXiv 2001.03994).
    The shift moves the target and the image under the noise alike, and the gradient goes through both.

    Args: z: (B, C, H, W) in [−1, 1]. z_noisy: the same under noise. sigma: (B,). classes: one-hot (B, m, K), the true class
        first. eps: in [0, 1] images. g: of the start.
    Returns: (B, C, H, W), within ± 2 eps. Not clipped to the images' range.
    """
    radius = 2 * eps
    start = ((2 * torch.rand(z.shape, generator=g) - 1) * radius).to(z).requires_grad_(True)
    loss = bayes_loss(denoiser.for_classes(z_noisy + start, sigma, classes), z + start, sigma, denoiser.sigma_data)
    (gradient,) = torch.autograd.grad(loss, start)
    return (start.detach() + 1.25 * radius * gradient.sign()).clamp(-radius, radius)


def multihead_loss(
    teacher: Precond, log_mean: float, log_std: float, heads: int, loss_weight: float, bayes_weight: float = 0.0
) -> Loss:
    """Distillation of the true class, ``heads`` other classes drawn per image, and the unconditional head."""
    teacher = teacher.eval().requires_grad_(False)

    def loss(student: Precond, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        z, sigma, z_noisy = _noisy(x, log_mean, log_std, g)
        classes = _contenders(y, heads, teacher.label_dim, g)
        return distillation_loss(student, teacher, z, z_noisy, sigma, classes, loss_weight, bayes_weight)

    return loss


def _noisy(x: Tensor, log_mean: float, log_std: float, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Clean images in [−1, 1], the noise level drawn for each, and the noisy images."""
    sigma = training_sigma(len(x), log_mean, log_std, g).to(x.device)
    noise = torch.randn(x.shape, generator=g).to(x.device)
    z = 2 * x - 1
    return z, sigma, z + sigma[:, None, None, None] * noise


def _contenders(y: Tensor, others: int, classes: int, g: torch.Generator) -> Tensor:
    """One-hot (B, others + 2, K): the true class, ``others`` drawn from the rest, and a row of zeros for no class."""
    wrong = (y.cpu()[:, None] + 1 + torch.rand(len(y), classes - 1, generator=g).argsort(dim=1)[:, :others]) % classes
    labels = one_hot(torch.cat([y[:, None], wrong.to(y.device)], dim=1), classes, torch.get_default_dtype())
    return torch.cat([labels, torch.zeros_like(labels[:, :1])], dim=1)
