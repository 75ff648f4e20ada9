"""What every denoiser is, and how denoisers without heads answer for many classes.

A denoiser is an ``nn.Module`` called as ``denoiser(z_noisy, sigma, class_labels=None) -> z_denoised`` on images in [−1, 1],
where ``z_noisy = z + σ n`` and ``n ~ N(0, I)``. Labels are indices (B,) or one-hot (B, K); None means unconditional.
Denoisers may add ``for_classes(z_noisy, sigma, class_labels)`` with ``m`` classes per image, (B, m) to (B, m, C, H, W), and
``all_classes(z_noisy, sigma)`` to (B, K, C, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Index labels (…) as one-hot (…, K); labels that are one-hot already keep their values."""
    if labels.is_floating_point():
        return labels.to(dtype)
    return F.one_hot(labels.long(), num_classes).to(dtype)


def for_classes(denoiser: nn.Module, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
    """Denoise under ``m`` classes per image with any denoiser.

    Args:
        z_noisy: (B, C, H, W). sigma: (B,). class_labels: index labels (B, m).
    Returns: (B, m, C, H, W).
    """
    own = getattr(denoiser, "for_classes", None)
    if own is not None:
        denoised: Tensor = own(z_noisy, sigma, class_labels)
        return denoised
    m = class_labels.shape[1]
    out = denoiser(z_noisy.repeat_interleave(m, dim=0), sigma.repeat_interleave(m, dim=0), class_labels.flatten())
    return out.unflatten(0, (-1, m))
