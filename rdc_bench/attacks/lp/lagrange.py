"""The Lagrange attack on classifiers that contain a diffusion model (Chen et al., arXiv 2305.15241, Table 2).

Likelihood maximisation moves an image to where the denoiser finds it likely, which undoes perturbations that are unlikely. The
attack therefore asks for both: a wrong class, and an image that the denoiser finds likely already,

    ``max_{x'} ℓ(f(x'), y) − weight · E_{σ,n} λ(σ) ‖D(z' + σ n; σ[, y]) − z'‖²/d``,  ``z' = 2x' − 1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import differentiated, evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, NonNegative, Positive, StepSize
from rdc_bench.core.errors import UserError
from rdc_bench.defenses.likelihood_maximization import Gradient
from rdc_bench.diffusion.loss import edm_weight
from rdc_bench.threats import LpThreat


def _in_order(options: Mapping[str, Any], threat: Any, num_classes: int) -> str:
    low, high = options["sigma_min"], options["sigma_max"]
    return f"sigma_min is at most sigma_max, and {low} is more than {high}" if low > high else ""


@attack("lagrange", threats=["linf", "l2"], check=_in_order)
def lagrange(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    loss: Loss = "ce",
    weight: NonNegative = 1.0,
    condition: Literal["none", "true"] = "none",
    sigma_min: Positive = 0.4,
    sigma_max: Positive = 0.6,
    draws: Count = 1,
    eot: Count = 1,
    restarts: Count = 1,
    gradient: Gradient = "exact",
) -> Tensor:
    """PGD on the classification loss minus the diffusion loss of the adversarial image; for models with a denoiser.

    Keeps the iterate of the highest classification loss, as what counts in the end is the class.

    Options:
        steps: per restart. step_size: 0 means 2.5 eps / steps. loss: ce, margin or dlr.
        weight: of the diffusion loss. condition: its class, none (unconditional) or the true one.
        sigma_min, sigma_max: its noise levels are uniform between them. draws: noise draws averaged per step.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
        gradient: exact, bpda or surrogate, where the model leaves the choice.
    """
    denoiser, labels = _denoiser(model, y, condition)
    seen = differentiated(model, gradient)
    loss_function = objective(loss)
    step = step_size or 2.5 * threat.eps / steps
    best = Best(seen, x)
    for _ in range(restarts):
        adversarial = threat.random_start(x, generators)
        for i in range(steps + 1):
            value, uphill, logits = evaluate(seen, adversarial, y, loss_function, eot)
            best.offer(adversarial, value, logits, y)
            if best.complete:
                return best.points
            if i < steps:
                drawn = _drawn(adversarial, generators, draws, sigma_min, sigma_max)
                uphill = uphill - weight * diffusion_gradient(denoiser, adversarial, labels, drawn)
                adversarial = threat.project(x, adversarial + step * threat.steepest(uphill, x))
    return best.points


class Noise(NamedTuple):
    """What a diffusion loss draws, for ``m`` draws one after the other: ``sigma`` (m, B) and ``n`` (m, B, C, H, W)."""

    sigma: Tensor
    n: Tensor


def diffusion_gradient(denoiser: nn.Module, x: Tensor, labels: Tensor | None, noise: Noise) -> Tensor:
    """The gradient by ``x`` of the mean over draws of ``λ(σ) ‖D(z + σ n; σ, y) − z‖²/d``; (B, C, H, W).

    Args: x: (B, C, H, W) in [0, 1]. labels: the denoiser's (B,), or None for the unconditional one.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        z = (2 * x - 1).repeat(len(noise.sigma), 1, 1, 1)
        sigma = noise.sigma.flatten()
        noisy = z + sigma[:, None, None, None] * noise.n.flatten(0, 1)
        denoised = denoiser(noisy, sigma) if labels is None else denoiser(noisy, sigma, labels.repeat(len(noise.sigma)))
        loss = edm_weight(sigma, getattr(denoiser, "sigma_data", 0.5)) * (denoised - z).square().flatten(1).mean(dim=1)
        (gradient,) = torch.autograd.grad(loss.sum() / len(noise.sigma), x)
    return gradient


def _drawn(x: Tensor, generators: Sequence[torch.Generator], draws: int, low: float, high: float) -> Noise:
    sigma = torch.stack([low + (high - low) * torch.rand(draws, generator=g) for g in generators], dim=1)
    n = torch.stack([torch.randn(draws, *x.shape[1:], generator=g) for g in generators], dim=1)
    return Noise(sigma.to(x), n.to(x))


def _denoiser(model: nn.Module, y: Tensor, condition: str) -> tuple[nn.Module, Tensor | None]:
    """The model's denoiser, and the labels that it knows the classes ``y`` by (None for the unconditional one)."""
    having: list[Any] = [part for part in model.modules() if isinstance(getattr(part, "denoiser", None), nn.Module)]
    if not having:
        raise UserError("attack lagrange needs a model with a denoiser, such as an RDC; pgd works on any")
    if condition == "none":
        return having[0].denoiser, None
    conditional = [part for part in having if hasattr(part, "class_labels")]
    if not conditional:
        raise UserError("attack lagrange with condition=true needs a diffusion classifier; condition=none works here")
    return conditional[0].denoiser, conditional[0].class_labels.to(y.device)[y]
