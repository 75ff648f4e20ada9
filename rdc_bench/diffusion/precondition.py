"""EDM preconditioning (Karras et al. 2022, arXiv 2206.00364, Table 1 and section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.networks import network_class


class EDMPrecond(nn.Module):
    """The denoiser ``D(z; σ, y) = c_skip z + c_out F(c_in z; c_noise, y)``.

    ``c_skip = σ_d²/(σ²+σ_d²)``, ``c_out = σ σ_d/√(σ²+σ_d²)``, ``c_in = 1/√(σ²+σ_d²)``, ``c_noise = ln(σ)/4``: input and
    training target of the raw network ``F`` then have unit variance at every noise level.

    Args:
        img_resolution, img_channels: image size (square) and channels.
        label_dim: number of classes; 0 for unconditional.
        use_fp16: run the raw network in half precision, where the device supports it.
        sigma_min, sigma_max: supported noise levels.
        sigma_data: standard deviation of the data in [−1, 1].
        model_type: name of the raw network's class in :mod:`rdc_bench.networks`.
        model_kwargs: its further arguments.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = float("inf"),
        sigma_data: float = 0.5,
        model_type: str = "MultiHeadUNet",
        **model_kwargs: Any,
    ) -> None:
        super().__init__()
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data
        #: The arguments that make another denoiser of the same shape.
        self.config: dict[str, Any] = {
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "label_dim": label_dim,
            "sigma_data": sigma_data,
            "model_type": model_type,
            **model_kwargs,
        }
        self.model = network_class(model_type)(
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels,
            label_dim=label_dim,
            **model_kwargs,
        )

    def forward(self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Denoise. z_noisy (B, C, H, W); sigma scalar or (B,); class_labels index (B,), one-hot (B, K) or None.

        Returns the estimate of the clean image in [−1, 1], (B, C, H, W).
        """
        labels = None if class_labels is None or not self.label_dim else one_hot(class_labels, self.label_dim, z_noisy.dtype)
        return self._precondition(z_noisy, sigma, lambda x, c_noise: self.model(x, c_noise, labels)[:, None])[:, 0]

    def for_classes(self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        """Denoise under ``m`` classes per image: index (B, m) or one-hot (B, m, K) labels give (B, m, C, H, W).

        Networks with heads share one trunk pass among the classes of an image; others are evaluated once per class.
        """
        labels = class_labels
        if not labels.is_floating_point():
            labels = one_hot(labels, self.label_dim, z_noisy.dtype)
        m = labels.shape[1]
        with_heads = getattr(self.model, "for_classes", None)
        if with_heads is not None:
            return self._precondition(z_noisy, sigma, lambda x, c_noise: with_heads(x, c_noise, labels))

        def one_pass_per_class(x: Tensor, c_noise: Tensor) -> Tensor:
            out = self.model(x.repeat_interleave(m, dim=0), c_noise.repeat_interleave(m, dim=0), labels.flatten(0, 1))
            return out.unflatten(0, (-1, m))

        return self._precondition(z_noisy, sigma, one_pass_per_class)

    def all_classes(self, z_noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoise under each of the K classes: (B, C, H, W) gives (B, K, C, H, W)."""
        labels = torch.arange(self.label_dim, device=z_noisy.device).expand(z_noisy.shape[0], -1)
        return self.for_classes(z_noisy, sigma, labels)

    def _precondition(self, z_noisy: Tensor, sigma: Tensor, network: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=z_noisy.dtype, device=z_noisy.device).expand(z_noisy.shape[0])
        s = sigma[:, None, None, None]
        total = (s**2 + self.sigma_data**2).sqrt()
        c_skip, c_out, c_in = (self.sigma_data / total) ** 2, s * self.sigma_data / total, 1 / total
        half = self.use_fp16 and z_noisy.device.type != "cpu"
        with torch.autocast(z_noisy.device.type, dtype=torch.float16, enabled=half):
            out = network(c_in * z_noisy, sigma.log() / 4)
        return (c_skip * z_noisy)[:, None] + c_out[:, None] * out.to(z_noisy.dtype)
