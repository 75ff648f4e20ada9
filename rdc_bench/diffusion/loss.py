"""Training objectives of denoisers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.diffusion.precondition import Precond


def training_sigma(batch: int, log_mean: float, log_std: float, generator: torch.Generator) -> Tensor:
    """Noise levels for training, ``ln σ ~ N(log_mean, log_std²)`` (Karras et al. 2022, Table 1). Shape (B,)."""
    return (log_mean + log_std * torch.randn(batch, generator=generator)).exp()


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """``λ(σ) = (σ² + σ_d²)/(σ σ_d)²``: makes the loss of an untrained network 1 at every noise level (Karras et al. 2022)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def denoising_loss(denoised: Tensor, z: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """EDM loss ``E λ(σ) ‖D(z + σ n; σ, y) − z‖²/d`` (Karras et al. 2022, eq. 3 and Table 1).

    Args:
        denoised: ``D(z + σ n; σ, y)``, and z: (B, C, H, W) in [−1, 1]. sigma: (B,).
    Returns: scalar.
    """
    return (edm_weight(sigma, sigma_data) * (denoised - z).square().mean(dim=(1, 2, 3))).mean()


def bayes_loss(denoised: Tensor, z: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """``−log p(y|z_σ)`` by Bayes' rule over the diffusion losses at one noise level.

    ``p(y|z_σ) = softmax_y(−λ(σ) ‖D(z_σ; σ, y) − z‖² / τ)`` with ``τ = BAYES_TEMPERATURE``: the classifier that the denoiser
    will be used in, reduced to one level. Likelihood alone hardly trains the differences between classes, which are
    a small part of it; adding this to it makes a hybrid of generative and discriminative training (Lasserre, Bishop & Minka
    2006, "Principled hybrids of generative and discriminative models").

    Args:
        denoised: (B, m, C, H, W) for m classes, the true one first. z: (B, C, H, W) in [−1, 1]. sigma: (B,).
    Returns: scalar, the mean over images.
    """
    logits = _bayes_logits(denoised, z, sigma, sigma_data)
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))


def adversarial_shift(denoised: Tensor, z: Tensor, sigma: Tensor, sigma_data: float, eps: float) -> Tensor:
    """The ℓ∞ shift of the clean images that raises :func:`bayes_loss` fastest while the denoisings stay what they are.

    One step of FGSM (Goodfellow et al. 2015, arXiv 1412.6572), which needs no differentiation here: with the denoisings held,
    the gradient of the loss with respect to ``z`` is ``2 λ/τ Σ_k p_k (D_k − D_true)``, where ``p_k`` is the posterior. No noise
    covers the perturbation of the target, unlike that of the noisy image, so this is where the classifier is easily moved.

    Args: as of :func:`bayes_loss`. eps: in [0, 1] images, as threats have it.
    Returns: (B, C, H, W), ``± 2 eps``, as images in [−1, 1] are twice as wide. Not clipped to the images' range.
    """
    posterior = _bayes_logits(denoised, z, sigma, sigma_data).softmax(dim=1)
    towards = (posterior[:, :, None, None, None] * (denoised - denoised[:, :1])).sum(dim=1)
    return 2 * eps * towards.sign()


def _bayes_logits(denoised: Tensor, z: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """(B, m), see :func:`bayes_loss`."""
    losses = edm_weight(sigma, sigma_data)[:, None] * (denoised - z[:, None]).square().sum(dim=(2, 3, 4))
    return -losses / BAYES_TEMPERATURE


def distillation_loss(
    student: Precond,
    teacher: Precond,
    z: Tensor,
    z_noisy: Tensor,
    sigma: Tensor,
    class_labels: Tensor,
    loss_weight: float,
    bayes_weight: float = 0.0,
) -> Tensor:
    """Multi-head distillation, sharpened for classification.

    The paper minimises ``E ‖D_mh(z_σ; σ)[y] − D_teacher(z_σ; σ, y)‖²`` (Chen et al., arXiv 2305.15241, eq. 10). Only the
    differences between classes decide, and they are a small part of that error. Hence two additions:

    * the error is split into the part common to the heads and each head's deviation from it, and the deviations count
      ``DIFFERENCE_WEIGHT`` times as much (1 is the paper's loss);
    * the diffusion losses ``L_y = ‖D(z_σ; σ, y) − z‖²/d`` of the classes are matched as well: the squared error of their
      deviations from the classes' mean, relative to the variance that the teacher's have, with weight ``loss_weight``. This is
      the error of the denoisings in the one direction that the classifier looks at.

    With ``bayes_weight`` the labels are used as well, see :func:`bayes_loss`.

    Args:
        z: clean images (B, C, H, W) in [−1, 1]. z_noisy: (B, C, H, W). sigma: (B,).
        class_labels: one-hot (B, m, K), the true class first; the last is a row of zeros, the unconditional denoiser, whose
            loss is not compared.
    Returns: scalar.
    """
    with torch.no_grad():
        target = teacher.for_classes(z_noisy, sigma, class_labels)
    denoised = student.for_classes(z_noisy, sigma, class_labels)
    error = denoised - target
    mean = error.mean(dim=1, keepdim=True)
    per_image = mean.square().mean(dim=(1, 2, 3, 4)) + DIFFERENCE_WEIGHT * (error - mean).square().mean(dim=(1, 2, 3, 4))
    denoising = edm_weight(sigma, student.sigma_data) * per_image

    wanted, found = _deviations(target[:, :-1], z), _deviations(denoised[:, :-1], z)
    relative = (found - wanted).square().sum(dim=1) / wanted.square().sum(dim=1).clamp_min(1e-10)
    total = (denoising + loss_weight * relative).mean()
    if bayes_weight:
        total = total + bayes_weight * bayes_loss(denoised[:, :-1], z, sigma, student.sigma_data)
    return total


def _deviations(denoised: Tensor, z: Tensor) -> Tensor:
    """Diffusion losses (B, m) of the classes minus their mean."""
    losses = (denoised - z[:, None]).square().mean(dim=(2, 3, 4))
    return losses - losses.mean(dim=1, keepdim=True)


DIFFERENCE_WEIGHT = 4.0

#: About what calibrates diffusion classifiers of some 16 levels on validation images, for 784 and for 3072 pixel values alike.
BAYES_TEMPERATURE = 8.0
