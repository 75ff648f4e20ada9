"""The diffusion classifier: Bayes' rule over class-conditional diffusion losses.

With a uniform prior, ``p(y|x) = softmax_y(log p(x|y))`` and ``log p(x|y) ≈ −L_y(x)``, where

    ``L_y(x) = Σ_i w(σ_i) Δ_i ‖D(z + σ_i n_i; σ_i, y) − z‖²/d``,  ``z = 2x − 1``,  ``n_i ~ N(0, I)``

(Chen et al., arXiv 2305.15241, eq. 8; Li et al. 2023, arXiv 2303.16203).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.core.randomness import Key, normal, row_keys
from rdc_bench.diffusion.denoiser import for_classes
from rdc_bench.diffusion.noise_levels import NoiseLevels, noise_levels
from rdc_bench.diffusion.weighting import weight

Noise = Literal["shared", "fresh", "fixed"]
NOISES = ("shared", "fresh", "fixed")


class DiffusionClassifier(nn.Module):
    """Classify images in [0, 1] by their diffusion loss under each class.

    Logits are ``−L_y(x)/temperature``. Their gradient is exact and costs the memory of one chunk, whatever T′ is: ``L_y`` is a
    sum over noise levels, so the backward pass recomputes it chunk by chunk with a graph, for those classes alone whose logit
    has a non-zero weight, and adds the chunks' gradients up.

    Args:
        denoiser: see :mod:`rdc_bench.diffusion.denoiser`. num_classes: K.
        class_labels: the denoiser's label of each class, for a denoiser that knows more classes; None for 0, …, K − 1.
        levels: number T′ of noise levels, placed by ``grid``; or a 1-D tensor of σ values, which then get even spacing.
        grid, log_mean, log_std: see :func:`rdc_bench.diffusion.noise_levels`.
        weighting: see :func:`rdc_bench.diffusion.weight`.
        noise: ``shared`` among the classes and drawn afresh at each call (most of the variance cancels in the differences of
            logits and in their gradients); ``fresh`` for each class too, which makes gradients noisy and the model look more
            robust than it is; ``fixed``, the same noise for every image and call, which makes the model deterministic.
        antithetic: neighbouring levels (first and second, third and fourth, …) see the same noise with opposite signs, which
            cancels the part of the error that is linear in the noise.
        temperature: divides the logits; chosen on validation images so that softmax neither saturates nor flattens.
        rows_per_pass: (image, level) pairs evaluated at once; bounds the memory.
        seed: of the ``fixed`` noise.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        num_classes: int,
        *,
        class_labels: Sequence[int] | None = None,
        levels: int | Tensor = 16,
        grid: str = "log-normal",
        log_mean: float = 0.0,
        log_std: float = 1.0,
        weighting: str = "edm",
        noise: Noise = "shared",
        antithetic: bool = False,
        temperature: float = 1.0,
        rows_per_pass: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if noise not in NOISES:
            raise unknown_name("noise", noise, NOISES, f"Noise: {', '.join(NOISES)}.")
        if class_labels is not None and len(class_labels) != num_classes:
            raise UserError(f"class_labels: {len(class_labels)} labels for {num_classes} classes")
        self.denoiser = denoiser
        self.num_classes = num_classes
        self.class_labels = torch.arange(num_classes) if class_labels is None else torch.tensor(class_labels)
        self.weighting = weighting
        self.noise = noise
        self.antithetic = antithetic
        self.temperature = temperature
        self.rows_per_pass = rows_per_pass
        self.seed = seed
        self.log_mean, self.log_std = log_mean, log_std
        if isinstance(levels, Tensor):
            self.levels = NoiseLevels(levels.double(), torch.full((len(levels),), 1 / len(levels), dtype=torch.float64))
        else:
            self.levels = noise_levels(grid, levels, log_mean=log_mean, log_std=log_std)

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same image may differ."""
        return self.noise != "fixed"

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
        keys: Sequence[Key] = row_keys(len(x)) if self.stochastic else [("fixed", self.seed)] * len(x)
        logits: Tensor = _ExactGradient.apply(x, self, keys)
        return logits

    def losses(self, x: Tensor, keys: Sequence[Key], classes: Tensor) -> Iterator[_Chunk]:
        """``w(σ_i) Δ_i ‖D(z + σ_i n_i; σ_i, y) − z‖²/d``, chunk by chunk over (image, level) pairs.

        Args:
            x: (B, C, H, W). keys: of the noise, one per image. classes: index (B, m), the classes wanted for each image.
        Yields: for the images ``index`` (R,), which may repeat, their losses (R, m).
        """
        weights = self._level_weights(x)
        pairs = torch.cartesian_prod(torch.arange(len(self.levels.sigma)), torch.arange(len(x)))
        for chunk in pairs.split(self.rows_per_pass):
            level, image = chunk[:, 0], chunk[:, 1]
            sigma = self.levels.sigma[level].to(x)
            z = 2 * x[image] - 1
            rows = [(*keys[i], t // 2 if self.antithetic else t) for t, i in chunk.tolist()]
            scale = sigma * (1 - 2 * (level.to(x.device) % 2)) if self.antithetic else sigma
            error = self._denoised(z, sigma, scale, classes[image], rows) - z[:, None]
            yield _Chunk(image, weights[level][:, None] * error.square().flatten(2).mean(dim=2))

    def _denoised(self, z: Tensor, sigma: Tensor, scale: Tensor, classes: Tensor, keys: Sequence[Key]) -> Tensor:
        """``D(z + scale n; σ, y)`` for each row and each of its classes, scale = ±σ: (R, m, C, H, W)."""

        def noisy(keys: Sequence[Key]) -> Tensor:
            return z + scale[:, None, None, None] * normal(keys, z.shape[1:]).to(z)

        labels = self.class_labels.to(classes.device)[classes]
        if self.noise != "fresh":
            return for_classes(self.denoiser, noisy(keys), sigma, labels)
        per_class = [
            for_classes(
                self.denoiser, noisy([(*k, c) for k, c in zip(keys, column.tolist(), strict=True)]), sigma, label[:, None]
            )
            for column, label in zip(classes.unbind(dim=1), labels.unbind(dim=1), strict=True)
        ]
        return torch.cat(per_class, dim=1)

    def _level_weights(self, x: Tensor) -> Tensor:
        sigma, spacing = self.levels
        w = weight(
            self.weighting,
            sigma,
            sigma_data=getattr(self.denoiser, "sigma_data", 0.5),
            dimension=x[0].numel(),
            log_mean=self.log_mean,
            log_std=self.log_std,
        )
        return (w * spacing).to(x)


class _Chunk(NamedTuple):
    image: Tensor
    loss: Tensor


class _ExactGradient(torch.autograd.Function):
    """Logits without a graph; their vector–Jacobian product by a second pass over the same noise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, classifier: DiffusionClassifier, keys: Sequence[Key]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.classifier, ctx.keys = classifier, keys
        classes = torch.arange(classifier.num_classes, device=x.device).expand(len(x), -1)
        total = x.new_zeros(len(x), classifier.num_classes)
        for image, loss in classifier.losses(x, keys, classes):
            total.index_add_(0, image.to(x.device), loss)
        return -total / classifier.temperature

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        classifier = ctx.classifier
        gradient = torch.zeros_like(x)
        wanted = int((grad_logits != 0).sum(dim=1).max())
        if wanted == 0:
            return gradient, None, None
        classes = grad_logits.abs().topk(wanted, dim=1).indices
        coefficient = -grad_logits.gather(1, classes) / classifier.temperature
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            for image, loss in classifier.losses(leaf, ctx.keys, classes):
                gradient += torch.autograd.grad((coefficient[image.to(x.device)] * loss).sum(), leaf)[0]
        return gradient, None, None
