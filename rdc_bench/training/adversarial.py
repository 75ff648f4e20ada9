"""Losses of the baselines: standard training, PGD adversarial training and TRADES.

The inner maximisation is a few PGD steps inside the loss; the attacks of :mod:`rdc_bench.attacks` are for evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.threats import LpThreat
from rdc_bench.training.loop import Loss


@dataclass(frozen=True)
class InnerAttack:
    """PGD inside the training loop: ``steps`` steps of ``step_size`` from a random start in the threat set."""

    threat: LpThreat
    steps: int
    step_size: float


def standard_loss(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
    """Cross-entropy on clean images."""
    return F.cross_entropy(model(x), y)


def pgd_loss(inner: InnerAttack) -> Loss:
    """Adversarial training (Madry et al. 2018, arXiv 1706.06083, eq. 2.1): cross-entropy on adversarial images."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        adversarial = _maximise(model, x, inner, g, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
        return F.cross_entropy(model(adversarial), y)

    return loss


def trades_loss(inner: InnerAttack, beta: float) -> Loss:
    """TRADES (Zhang et al. 2019, arXiv 1901.08573, eq. 5): ``CE(f(x), y) + β max KL(f(x) ‖ f(x'))``."""

    def loss(model: nn.Module, x: Tensor, y: Tensor, g: torch.Generator) -> Tensor:
        model.eval()
        with torch.no_grad():
            clean = model(x).softmax(dim=1)
        model.train()
        adversarial = _maximise(model, x, inner, g, lambda logits: F.kl_div(logits.log_softmax(dim=1), clean, reduction="sum"))
        logits = model(x)
        divergence = F.kl_div(model(adversarial).log_softmax(dim=1), logits.softmax(dim=1), reduction="batchmean")
        return F.cross_entropy(logits, y) + beta * divergence

    return loss


def _maximise(
    model: nn.Module, x: Tensor, inner: InnerAttack, g: torch.Generator, objective: Callable[[Tensor], Tensor]
) -> Tensor:
    """PGD against ``model`` in eval mode, so that the attack's batches do not move the batch statistics."""
    threat = inner.threat
    model.eval()
    adversarial = threat.random_start(x, [g])
    for _ in range(inner.steps):
        adversarial.requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(model(adversarial)), adversarial)
        adversarial = threat.project(x, adversarial.detach() + inner.step_size * threat.steepest(gradient, x))
    model.train()
    return adversarial.detach()
