"""Attacks under a bounded perceptual distance (Laidlaw, Singla & Feizi 2021, arXiv 2006.12655): PPGD and LPA."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats.perceptual import PerceptualThreat

#: Standard deviation of the noise that both attacks start from, as in the paper: at the image itself the distance has no slope.
START = 0.01
#: Steps shrink by this factor over an attack, as in the paper.
SHRINKAGE = 0.1
#: The share of a step over which LPA measures how fast the distance grows.
PROBE = 0.1
#: LPA's first weight of the penalty, where 1 makes both gradients equally long, and its factor while there is no bracket.
FIRST_WEIGHT, LEAP = 1.0, 10.0


@attack("ppgd", threats=["perceptual"])
def ppgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: PerceptualThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 40,
    step_size: StepSize = 0.0,
    cg_steps: Count = 5,
    loss: Loss = "margin",
    eot: Count = 1,
) -> Tensor:
    """Perceptual PGD: steps that gain most at a given perceptual length, each brought back within the bound (algorithm 1).

    To first order a step ``Δ`` has the length ``‖JΔ‖``, with J the Jacobian of the embedding. The best step of length η is
    ``η h / ‖Jh‖`` with ``JᵀJ h = ∇L``, which conjugate gradients solve. Pixels that the gradient drives out of [0, 1] stay out
    of the system. The way back is a bisection towards the original.

    Options:
        steps: of ascent. cg_steps: iterations of conjugate gradients in each. loss: ce, margin or dlr.
        step_size: perceptual length of the first step, which shrinks tenfold over the attack; 0 means eps.
        eot: draws of the model's randomness averaged per step.
    """
    goal, best = objective(loss), Best(model, x)
    point = threat.project(x, _noised(x, generators))
    for i in range(steps + 1):
        value, gradient, logits = evaluate(model, point, y, goal, eot)
        best.offer(point, value, logits, y)
        if i == steps or best.complete:
            break
        free = ~(((point <= 0) & (gradient < 0)) | ((point >= 1) & (gradient > 0)))
        direction, length = steepest(threat.embed, point, gradient, free, cg_steps)
        step = (step_size or threat.eps) * SHRINKAGE ** (i / steps) / length.clamp_min(1e-30)
        point = threat.project(x, (point + _rows(step) * direction).to(x))
    return best.points


def steepest(
    embed: Callable[[Tensor], Tensor], point: Tensor, gradient: Tensor, free: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """``h`` with ``JᵀJ h ≈ gradient`` on the free pixels and zero elsewhere, and its perceptual length ``‖Jh‖`` (B,).

    Conjugate gradients on all images side by side, in float64. An image whose residual vanishes is left as it is. The
    gradient is scaled to unit norm first: only the direction matters.
    """
    push, pull = _jacobian(embed, point)
    residual = _unit(gradient.double() * free)
    direction, size = residual, _dot(residual, residual)
    solution, pushed_solution = torch.zeros_like(residual), torch.zeros_like(push(residual))
    for _ in range(iterations):
        pushed = push(direction)
        curvature = pushed.square().sum(dim=1)
        rate = torch.where(curvature > 0, size / curvature.clamp_min(1e-300), 0)
        solution, pushed_solution = solution + _rows(rate) * direction, pushed_solution + rate[:, None] * pushed
        residual = residual - _rows(rate) * pull(pushed) * free
        previous, size = size, _dot(residual, residual)
        direction = residual + _rows(torch.where(previous > 0, size / previous.clamp_min(1e-300), 0)) * direction
    return solution, pushed_solution.norm(dim=1)


Linear = Callable[[Tensor], Tensor]


def _jacobian(embed: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Linear, Linear]:
    """``v ↦ Jv`` and ``w ↦ Jᵀw`` at ``point``, in float64.

    ``Jᵀw`` is linear in w, so that its derivative by w, which backward mode gives, is ``Jv``: cheaper than forward mode, as the
    network is passed once for all products.
    """
    point = point.detach().double().requires_grad_(True)
    with torch.enable_grad():
        embedded = embed(point)
        w = torch.zeros_like(embedded, requires_grad=True)
        (pulled,) = torch.autograd.grad(embedded, point, w, create_graph=True)

    def push(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, w, v, retain_graph=True)[0]

    def pull(v: Tensor) -> Tensor:
        return torch.autograd.grad(embedded, point, v, retain_graph=True)[0]

    return push, pull


@attack("lpa", threats=["perceptual"])
def lpa(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: PerceptualThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 20,
    searches: Count = 5,
    loss: Loss = "margin",
    eot: Count = 1,
) -> Tensor:
    """Lagrangian perceptual attack: the loss less ``λ max(0, d − ε)``, with a search for the weight λ (algorithm 2).

    λ is searched for per image, on a logarithmic scale whose unit makes both gradients equally long at the start: up after a
    search that ended outside the bound, down after one that ended inside. Each search starts anew and ends with a bisection
    back within the bound; what it meets inside on its way counts too.

    Options:
        steps: per search. searches: weights tried. loss: ce, margin or dlr. eot: draws of the model's randomness per step.
    """
    goal, best = objective(loss), Best(model, x)
    origin = threat.embed(x).detach()
    weight = torch.full((len(x),), FIRST_WEIGHT, dtype=torch.float64, device=x.device)
    low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    start = _noised(x, generators)
    unit: Tensor | None = None
    for _ in range(searches):
        point = start
        for i in range(steps):
            value, gradient, logits = evaluate(model, point, y, goal, eot)
            embedded, distance, growth = _distance(threat, point, origin)
            inside = distance <= threat.eps
            # Points outside the bound are no results: their value is worthless, and they count as classified rightly.
            counted = torch.where(inside[:, None], logits, F.one_hot(y, logits.shape[1]).to(logits))
            best.offer(point, value.masked_fill(~inside, -torch.inf), counted, y)
            if best.complete:
                return best.points
            if unit is None:
                unit = _norm(gradient) / _norm(growth).clamp_min(1e-300)
            penalty = torch.where(inside, 0, weight * unit)
            direction = _unit(gradient.double() - _rows(penalty) * growth)
            length = threat.eps * SHRINKAGE ** (i / steps)
            probe = (point + PROBE * direction).clamp(0, 1).to(x)
            with torch.no_grad():
                speed = (threat.embed(probe) - embedded).norm(dim=1) / PROBE
            point = (point + _rows(length / speed.clamp_min(1e-30)) * direction).clamp(0, 1).to(x)
        outside = threat.distance(x, point) > threat.eps
        point = threat.project(x, point)
        value, _, logits = evaluate(model, point, y, goal, eot)
        best.offer(point, value, logits, y)
        low, high = torch.where(outside, weight, low), torch.where(outside, high, weight)
        weight = torch.where(low == 0, high / LEAP, torch.where(high.isinf(), low * LEAP, (low * high).sqrt()))
    return best.points


def _noised(x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    noise = torch.cat([torch.randn((1, *x.shape[1:]), generator=g) for g in generators])
    return (x + START * noise.to(x)).clamp(0, 1)


def _distance(threat: PerceptualThreat, point: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The embedding of ``point``, its distance from ``origin``, which is another's, (B,), and the distance's gradient."""
    point = point.detach().double().requires_grad_(True)
    with torch.enable_grad():
        embedded = threat.embed(point)
        distance = ((embedded - origin).square().sum(dim=1) + 1e-20).sqrt()
        (growth,) = torch.autograd.grad(distance.sum(), point)
    return embedded.detach(), distance.detach(), growth


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).flatten(1).sum(dim=1)


def _norm(x: Tensor) -> Tensor:
    return x.double().flatten(1).norm(dim=1)


def _unit(x: Tensor) -> Tensor:
    return x / _rows(_norm(x).clamp_min(1e-300))


def _rows(values: Tensor) -> Tensor:
    return values[:, None, None, None]
