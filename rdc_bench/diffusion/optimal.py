"""Denoisers that are known in closed form, for tests and for the paper's theory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rdc_bench.diffusion.denoiser import one_hot


class OptimalDenoiser(nn.Module):
    """The minimiser of the diffusion loss over a finite training set (Chen et al., arXiv 2305.15241, Theorem 3.2).

    ``D*(z_σ; σ, y) = Σ_i softmax_i(−‖z_σ − z_i‖²/2σ²) z_i`` over the training images ``i`` of class ``y`` (of all classes when
    unconditional).

    Args:
        images: (N, C, H, W) in [0, 1]. labels: (N,).
    """

    z: Tensor
    labels: Tensor

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("z", 2 * images - 1)
        self.register_buffer("labels", labels)
        self.label_dim = int(labels.max()) + 1
        self.sigma_data = 0.5

    def forward(self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Denoise z_noisy (B, C, H, W) at sigma (B,), for index (B,) or one-hot (B, K) labels or None."""
        z = self.z.to(z_noisy)
        sigma = torch.as_tensor(sigma).to(z_noisy).expand(len(z_noisy))
        squared = (z_noisy.flatten(1)[:, None] - z.flatten(1)[None]).square().sum(dim=2)
        logits = -squared / (2 * sigma[:, None] ** 2)
        if class_labels is not None:
            wanted = one_hot(class_labels, self.label_dim, z_noisy.dtype)
            allowed = wanted[:, self.labels] > 0
            logits = logits.masked_fill(~(allowed | (wanted.sum(dim=1, keepdim=True) == 0)), -torch.inf)
        return (logits.softmax(dim=1) @ z.flatten(1)).unflatten(1, z_noisy.shape[1:])


class GaussianDenoiser(nn.Module):
    """The optimal denoiser of Gaussian classes ``z | y ~ N(μ_y, s² I)``.

    ``D*(z_σ; σ, y) = (s² z_σ + σ² μ_y)/(s² + σ²)``, the posterior mean. Its diffusion classifier must therefore agree with
    Bayes' rule for the Gaussians themselves.

    Args:
        means: (K, C, H, W), in the units of z (images are in [−1, 1]). std: s.
    """

    means: Tensor

    def __init__(self, means: Tensor, std: float) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.std = std
        self.label_dim = len(means)
        self.sigma_data = 0.5

    def forward(self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        """Denoise z_noisy (B, C, H, W) at sigma (B,), for index (B,) or one-hot (B, K) labels."""
        weights = one_hot(class_labels, self.label_dim, z_noisy.dtype)
        mean = torch.einsum("bk,kchw->bchw", weights, self.means.to(z_noisy))
        s = torch.as_tensor(sigma).to(z_noisy).expand(len(z_noisy))[:, None, None, None]
        return (self.std**2 * z_noisy + s**2 * mean) / (self.std**2 + s**2)
