"""From a raw network to a denoiser: the preconditionings of Karras et al. 2022 (arXiv 2206.00364, Table 1 and section 5).

All three have the form ``D(z; σ, y) = c_skip z + c_out F(c_in z; c_noise, y)`` and differ in the coefficients. Constructor
arguments, state-dict keys and outputs are those of the classes of the same names in NVlabs' EDM.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.networks import network_class


class Coefficients(NamedTuple):
    """Of the preconditioning at some noise levels, each (B,)."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


class Precond(nn.Module, ABC):
    """What the preconditionings share. It computes in the type of the network's parameters, whatever the images'.

    Args:
        img_resolution, img_channels: image size (square) and channels C.
        label_dim: number of classes K; 0 for unconditional.
        use_fp16: run the raw network in half precision, where the device supports it.
        model_type: name of the raw network's class in :mod:`rdc_bench.networks`. model_kwargs: its further arguments.
        heads: 0, or the number of heads of a multi-head denoiser whose last convolution is widened: the raw network is not told
            the class and puts out ``heads · C`` channels, class by class: ``y C … y C + C − 1`` are the image for class ``y``,
            as in the RDC authors' checkpoints. With ``K + 1`` heads, the last is the unconditional one.
        scheme: further arguments of the subclass.
    Raises: ``UserError`` for an unknown network, or heads that are neither K nor K + 1.
    """

    #: Standard deviation of the data in [−1, 1], which the EDM weighting refers to.
    sigma_data: float = 0.5

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        use_fp16: bool,
        model_type: str,
        heads: int,
        model_kwargs: dict[str, Any],
        **scheme: Any,
    ) -> None:
        super().__init__()
        if heads and heads not in (label_dim, label_dim + 1):
            raise UserError(f"heads = {heads}: a multi-head denoiser of {label_dim} classes has {label_dim} or {label_dim + 1}")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.heads = heads
        #: The arguments that make another denoiser of the same shape.
        self.config: dict[str, Any] = {
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "label_dim": label_dim,
            **scheme,
            "model_type": model_type,
            **({"heads": heads} if heads else {}),
            **model_kwargs,
        }
        self.model = network_class(model_type)(
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels * max(heads, 1),
            label_dim=0 if heads else label_dim,
            **model_kwargs,
        )

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The coefficients at the noise levels ``sigma`` (B,)."""

    def round_sigma(self, sigma: float | Tensor) -> Tensor:
        """The nearest supported noise levels, which are all."""
        return torch.as_tensor(sigma)

    def forward(
        self,
        z_noisy: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        force_fp32: bool = False,
        **model_kwargs: Any,
    ) -> Tensor:
        """Denoise.

        Args:
            z_noisy: (B, C, H, W), image in [−1, 1] plus σ times standard normal noise. sigma: scalar or (B,).
            class_labels: index (B,), one-hot (B, K) or (1, K), or None, which is the zero label: unconditional.
            force_fp32: no half precision in this call. model_kwargs: of the raw network's call, such as ``augment_labels``.
        Returns: the estimate of the clean image, (B, C, H, W).
        """
        if self.heads:
            if class_labels is None:
                class_labels = z_noisy.new_zeros(1, self.label_dim)
            if not self._is_index(class_labels):
                class_labels = class_labels.reshape(-1, self.label_dim).to(z_noisy.dtype).expand(len(z_noisy), -1)
            return self._by_head(z_noisy, sigma, class_labels[:, None], force_fp32, **model_kwargs)[:, 0]
        labels: Tensor | None = None
        if class_labels is not None and self.label_dim:
            index = self._is_index(class_labels)
            labels = one_hot(class_labels, self.label_dim, z_noisy.dtype) if index else class_labels.to(z_noisy.dtype)
            labels = labels.reshape(-1, self.label_dim)

        def network(x: Tensor, c_noise: Tensor) -> Tensor:
            return self.model(x, c_noise, labels, **model_kwargs)[:, None]

        return self._precondition(z_noisy, sigma, network, force_fp32)[:, 0]

    def for_classes(self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        """Denoise under ``m`` classes per image: index (B, m) or one-hot (B, m, K) labels give (B, m, C, H, W).

        Networks with heads share one trunk pass among the classes of an image; others are evaluated once per class.
        """
        if self.heads:
            return self._by_head(z_noisy, sigma, class_labels)
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

    @staticmethod
    def _is_index(class_labels: Tensor) -> bool:
        """Whether labels of single images are indices rather than one-hot."""
        return class_labels.ndim == 1 and not class_labels.is_floating_point()

    def _by_head(
        self, z_noisy: Tensor, sigma: Tensor, class_labels: Tensor, force_fp32: bool = False, **model_kwargs: Any
    ) -> Tensor:
        """One pass of the network, and of its heads those of index (B, m) or one-hot (B, m, K) labels: (B, m, C, H, W)."""
        head = class_labels
        if head.is_floating_point():
            head = head.argmax(dim=-1).masked_fill(~head.any(dim=-1), self.label_dim)
            if self.heads == self.label_dim and bool((head == self.label_dim).any()):
                raise UserError(
                    f"this denoiser has {self.heads} heads, one for each class, and none for the unconditional denoising "
                    f"that was asked for; it would need {self.heads + 1}"
                )
        rows = torch.arange(len(z_noisy), device=z_noisy.device)[:, None]

        def network(x: Tensor, c_noise: Tensor) -> Tensor:
            return self.model(x, c_noise, **model_kwargs).unflatten(1, (self.heads, -1))[rows, head]

        return self._precondition(z_noisy, sigma, network, force_fp32)

    def _precondition(
        self, z_noisy: Tensor, sigma: Tensor, network: Callable[[Tensor, Tensor], Tensor], force_fp32: bool = False
    ) -> Tensor:
        """Wrap ``network(x, c_noise) -> (B, m, C, H, W)``, where x is (B, C, H, W) and c_noise (B,)."""
        dtype = next(self.model.parameters(), z_noisy).dtype
        z_noisy = z_noisy.to(dtype)
        sigma = torch.as_tensor(sigma, dtype=dtype, device=z_noisy.device).reshape(-1).expand(z_noisy.shape[0])
        c = self.coefficients(sigma)
        with self._precision(z_noisy.device.type, force_fp32):
            out = network(c.into[:, None, None, None] * z_noisy, c.noise)
        skip = (c.skip[:, None, None, None] * z_noisy)[:, None]
        return skip + c.out[:, None, None, None, None] * out.to(dtype)

    def _precision(self, device: str, force_fp32: bool) -> contextlib.AbstractContextManager[Any]:
        if force_fp32:
            return torch.autocast(device, enabled=False)
        if self.use_fp16 and device != "cpu":
            return torch.autocast(device, dtype=torch.float16)
        return contextlib.nullcontext()  # which leaves a caller's autocast alone


class EDMPrecond(Precond):
    """Of EDM: input and training target of the raw network have unit variance at every noise level.

    ``c_skip = σ_d²/(σ²+σ_d²)``, ``c_out = σ σ_d/√(σ²+σ_d²)``, ``c_in = 1/√(σ²+σ_d²)``, ``c_noise = ln(σ)/4``.

    Args:
        sigma_min, sigma_max: supported noise levels. sigma_data: σ_d, standard deviation of the data in [−1, 1].
        others: see :class:`Precond`.
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
        model_type: str = "DhariwalUNet",
        *,
        heads: int = 0,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(
            img_resolution, img_channels, label_dim, use_fp16, model_type, heads, model_kwargs, sigma_data=sigma_data
        )
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at ``sigma`` (B,)."""
        total = (sigma**2 + self.sigma_data**2).sqrt()
        return Coefficients((self.sigma_data / total) ** 2, sigma * self.sigma_data / total, 1 / total, sigma.log() / 4)


class VPPrecond(Precond):
    """Of the variance-preserving diffusion (DDPM, DDPM++), whose network predicts the noise.

    ``c_skip = 1``, ``c_out = −σ``, ``c_in = 1/√(σ²+1)``, ``c_noise = (M−1) t(σ)``, where
    ``σ(t) = √(exp(β_d t²/2 + β_min t) − 1)``.

    Args:
        beta_d, beta_min: slope and start of the noise schedule ``β(t) = β_d t + β_min``.
        M: number of steps of the discrete formulation. epsilon_t: smallest time t in training.
        others: see :class:`Precond`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,  # noqa: N803
        epsilon_t: float = 1e-5,
        model_type: str = "SongUNet",
        *,
        heads: int = 0,
        **model_kwargs: Any,
    ) -> None:
        scheme = {"beta_d": beta_d, "beta_min": beta_min, "M": M, "epsilon_t": epsilon_t}
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, heads, model_kwargs, **scheme)
        self.beta_d = beta_d
        self.beta_min = beta_min
        self.M = M
        self.epsilon_t = epsilon_t
        # Without tensors, so that networks can be built on the meta device.
        self.sigma_min, self.sigma_max = (math.sqrt(math.expm1(0.5 * beta_d * t**2 + beta_min * t)) for t in (epsilon_t, 1.0))

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at ``sigma`` (B,)."""
        return Coefficients(torch.ones_like(sigma), -sigma, (sigma**2 + 1).rsqrt(), (self.M - 1) * self.sigma_inv(sigma))

    def sigma(self, t: float | Tensor) -> Tensor:
        """Noise level σ at time t ∈ [0, 1]."""
        t = torch.as_tensor(t)
        return (0.5 * self.beta_d * t**2 + self.beta_min * t).expm1().sqrt()

    def sigma_inv(self, sigma: float | Tensor) -> Tensor:
        """Time t of the noise level σ."""
        sigma = torch.as_tensor(sigma)
        return ((self.beta_min**2 + 2 * self.beta_d * (sigma**2).log1p()).sqrt() - self.beta_min) / self.beta_d


class VEPrecond(Precond):
    """Of the variance-exploding diffusion (NCSN++), whose network predicts the negative noise.

    ``c_skip = 1``, ``c_out = σ``, ``c_in = 1``, ``c_noise = ln(σ/2)``.

    Args:
        sigma_min, sigma_max: supported noise levels.
        others: see :class:`Precond`.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        model_type: str = "SongUNet",
        *,
        heads: int = 0,
        **model_kwargs: Any,
    ) -> None:
        super().__init__(img_resolution, img_channels, label_dim, use_fp16, model_type, heads, model_kwargs)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at ``sigma`` (B,)."""
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (sigma / 2).log())


#: The only preconditionings that a card or a configuration file can name.
PRECONDITIONINGS: dict[str, type[Precond]] = {cls.__name__: cls for cls in (EDMPrecond, VPPrecond, VEPrecond)}
