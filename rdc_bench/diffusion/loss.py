"""Training objectives of denoisers."""

from __future__ import annotations

import torch
from torch import Tensor

from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.diffusion.precondition import Precond


def training_sigma(batch: int, log_mean: float, log_std: float, generator: torch.Generator) -> Tensor:
    """Noise levels for training, ``ln σ ~ N(log_mean, log_std²)`` (Karras et al. 2022, Table 1). Shape (B,)."""
    return (log_mean + log_std * torch.randn(batch, generator=generator)).exp()


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """``λ(σ) = (σ² + σ_d²)/(σ σ_d)²``: makes the loss of an untrained network 1 at every noise level (Karras et al. 2022)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def denoising_loss(
    denoiser: Precond,
    z: Tensor,
    labels: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    keep_label: Tensor,
) -> Tensor:
    """EDM loss ``E λ(σ) ‖D(z + σ n; σ, y) − z‖²/d`` (Karras et al. 2022, eq. 3 and Table 1).

    Args:
        z: (B, C, H, W) in [−1, 1]. labels: (B,). sigma: (B,). noise: like ``z``.
        keep_label: bool (B,); False drops the label, which trains the unconditional denoiser with the same network.
    Returns: scalar.
    """
    one = one_hot(labels, denoiser.label_dim, z.dtype) * keep_label[:, None]
    error = denoiser(z + sigma[:, None, None, None] * noise, sigma, one) - z
    return (edm_weight(sigma, denoiser.sigma_data) * error.square().mean(dim=(1, 2, 3))).mean()


def distillation_loss(
    student: Precond,
    teacher: Precond,
    z: Tensor,
    z_noisy: Tensor,
    sigma: Tensor,
    class_labels: Tensor,
    loss_weight: float,
) -> Tensor:
    """Multi-head distillation, sharpened for classification.

    The paper minimises ``E ‖D_mh(z_σ; σ)[y] − D_teacher(z_σ; σ, y)‖²`` (Chen et al., arXiv 2305.15241, eq. 10). Only the
    differences between classes decide, and they are a small part of that error. Hence two additions:

    * the error is split into the part common to the heads and each head's deviation from it, and the deviations count
      ``DIFFERENCE_WEIGHT`` times as much (1 is the paper's loss);
    * the diffusion losses ``L_y = ‖D(z_σ; σ, y) − z‖²/d`` of the classes are matched as well: the squared error of their
      deviations from the classes' mean, relative to the variance that the teacher's have, with weight ``loss_weight``. This is
      the error of the denoisings in the one direction that the classifier looks at.

    Args:
        z: clean images (B, C, H, W) in [−1, 1]. z_noisy: (B, C, H, W). sigma: (B,).
        class_labels: one-hot (B, m, K); a row of zeros is the unconditional denoiser, whose loss is not compared.
    Returns: scalar.
    """
    with torch.no_grad():
        target = teacher.for_classes(z_noisy, sigma, class_labels)
    denoised = student.for_classes(z_noisy, sigma, class_labels)
    error = denoised - target
    mean = error.mean(dim=1, keepdim=True)
    per_image = mean.square().mean(dim=(1, 2, 3, 4)) + DIFFERENCE_WEIGHT * (error - mean).square().mean(dim=(1, 2, 3, 4))
    denoising = edm_weight(sigma, student.sigma_data) * per_image

    conditional = class_labels.sum(dim=2, keepdim=True)[..., 0]
    wanted = _deviations((target - z[:, None]).square().mean(dim=(2, 3, 4)), conditional)
    found = _deviations((denoised - z[:, None]).square().mean(dim=(2, 3, 4)), conditional)
    relative = (found - wanted).square().sum(dim=1) / wanted.square().sum(dim=1).clamp_min(1e-10)
    return (denoising + loss_weight * relative).mean()


def _deviations(losses: Tensor, conditional: Tensor) -> Tensor:
    """Losses (B, m) minus their mean over the conditional heads, and zero for the others."""
    mean = (losses * conditional).sum(dim=1, keepdim=True) / conditional.sum(dim=1, keepdim=True)
    return (losses - mean) * conditional


DIFFERENCE_WEIGHT = 4.0
