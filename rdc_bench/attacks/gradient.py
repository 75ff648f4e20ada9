"""Gradients of randomised models: expectation over transformation (Athalye et al. 2018, arXiv 1802.00420)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.losses import Objective


class Evaluation(NamedTuple):
    """One look at the model: mean objective (B,), its gradient (B, C, H, W), and the mean logits over draws (B, K)."""

    value: Tensor
    gradient: Tensor
    logits: Tensor


def evaluate(model: nn.Module, x: Tensor, y: Tensor, loss: Objective, eot: int) -> Evaluation:
    """Objective and gradient, averaged over ``eot`` draws of the model's randomness, evaluated as one batch.

    The mean is taken over objectives, not over logits: each draw is a whole model of its own.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(x.repeat(eot, 1, 1, 1) if eot > 1 else x)
        values = loss(logits, y.repeat(eot)).unflatten(0, (eot, -1)).mean(dim=0)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return Evaluation(values.detach(), gradient, logits.detach().unflatten(0, (eot, -1)).mean(dim=0))
