"""Training objectives of denoisers."""

from __future__ import annotations

import torch
from torch import Tensor

from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.diffusion.precondition import EDMPrecond


def training_sigma(batch: int, log_mean: float, log_std: float, generator: torch.Generator) -> Tensor:
    """Noise levels for training, ``ln σ ~ N(log_mean, log_std²)`` (Karras et al. 2022, Table 1). Shape (B,)."""
    return (log_mean + log_std * torch.randn(batch, generator=generator)).exp()


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """``λ(σ) = (σ² + σ_d²)/(σ σ_d)²``: makes the loss of an untrained network 1 at every noise level (Karras et al. 2022)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def denoising_loss(
    denoiser: EDMPrecond,
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


def distillation_loss(student: EDMPrecond, teacher: EDMPrecond, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
    """Multi-head distillation ``E ‖D_mh(z_σ; σ)[y] − D_teacher(z_σ; σ, y)‖²`` (Chen et al., arXiv 2305.15241, eq. 10).

    The classes' denoisings differ by little, and only their differences decide the class. The loss is therefore the mean
    error of the heads plus, with equal weight after scaling to its share, the error of each head's *deviation from the mean
    over the heads*; the paper's loss is the same sum with both parts weighted by their dimension.

    Args:
        z_noisy: (B, C, H, W). sigma: (B,). class_labels: one-hot (B, m, K) (zeros: unconditional).
    Returns: scalar, weighted by λ(σ).
    """
    with torch.no_grad():
        target = teacher.for_classes(z_noisy, sigma, class_labels)
    error = student.for_classes(z_noisy, sigma, class_labels) - target
    mean = error.mean(dim=1, keepdim=True)
    per_image = mean.square().mean(dim=(1, 2, 3, 4)) + DIFFERENCE_WEIGHT * (error - mean).square().mean(dim=(1, 2, 3, 4))
    return (edm_weight(sigma, student.sigma_data) * per_image).mean()


#: How much more the differences between heads count than their common part; 1 is the paper's loss.
DIFFERENCE_WEIGHT = 4.0
