"""Losses that train the class-conditional teacher and distil the multi-head student."""

from __future__ import annotations

import torch
from torch import Tensor

from rdc_bench.diffusion.denoiser import one_hot
from rdc_bench.diffusion.loss import denoising_loss, distillation_loss, training_sigma
from rdc_bench.diffusion.precondition import Precond
from rdc_bench.training.loop import Loss


def teacher_loss(log_mean: float, log_std: float, label_dropout: float) -> Loss:
    """The EDM loss with a share ``label_dropout`` of the labels dropped, for the unconditional denoiser."""

    def loss(denoiser: Precond, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        sigma = training_sigma(len(x), log_mean, log_std, g).to(x.device)
        noise = torch.randn(x.shape, generator=g).to(x.device)
        keep = (torch.rand(len(x), generator=g) >= label_dropout).to(x.device)
        return denoising_loss(denoiser, 2 * x - 1, y, sigma=sigma, noise=noise, keep_label=keep)

    return loss


def multihead_loss(teacher: Precond, log_mean: float, log_std: float, heads: int, loss_weight: float) -> Loss:
    """Distillation of the true class, ``heads`` other classes drawn per image, and the unconditional head."""
    teacher = teacher.eval().requires_grad_(False)
    k = teacher.label_dim

    def loss(student: Precond, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        sigma = training_sigma(len(x), log_mean, log_std, g).to(x.device)
        noise = torch.randn(x.shape, generator=g).to(x.device)
        others = (y.cpu()[:, None] + 1 + torch.rand(len(x), k - 1, generator=g).argsort(dim=1)[:, :heads]) % k
        classes = one_hot(torch.cat([y[:, None], others.to(y.device)], dim=1), k, x.dtype)
        classes = torch.cat([classes, torch.zeros_like(classes[:, :1])], dim=1)
        z = 2 * x - 1
        return distillation_loss(student, teacher, z, z + sigma[:, None, None, None] * noise, sigma, classes, loss_weight)

    return loss
