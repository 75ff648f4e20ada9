"""Likelihood maximisation: move an image to higher unconditional likelihood inside a small ball, before it is classified.

``argmin_{‖x̂−x‖_∞ ≤ η} E_{σ,n} λ(σ) ‖D(ẑ + σ n; σ) − ẑ‖²/d``, ``ẑ = 2x̂ − 1`` (Chen et al., arXiv 2305.15241, section 3.3 and
algorithm 1), by a few steps of stochastic gradient descent.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rdc_bench.core.errors import unknown_name
from rdc_bench.core.randomness import Key, normal, row_keys, uniform
from rdc_bench.diffusion.loss import edm_weight

Optimizer = Literal["adam", "normalized"]
Gradient = Literal["exact", "bpda", "surrogate"]
OPTIMIZERS = ("adam", "normalized")
GRADIENTS = ("exact", "bpda", "surrogate")


class LikelihoodMaximization(nn.Module):
    """Images in [0, 1] to images of higher likelihood, within η in the maximum norm.

    Args:
        denoiser: its unconditional denoising is used. eta: radius η. steps: N. step_size: per step, in the image's units.
        optimizer: ``adam`` as in the authors' code (its first step is the sign of the gradient, and has almost no derivative);
            ``normalized``, steps along the gradient scaled to unit root mean square, which an attacker can differentiate.
        sigma: range that the noise level of each draw is uniform in. draws: noise draws averaged per step.
        gradient: of the output with respect to the input. ``exact`` differentiates through all N steps (a Hessian-vector
            product per step; memory of one chunk); ``bpda`` pretends that the step is the identity (Athalye et al. 2018,
            arXiv 1802.00420); ``surrogate`` differentiates a smooth maximisation (:meth:`smooth_update`) instead of this one.
            Both approximations leave the output as it is, and must be named wherever they were used.
        noise: ``shared`` draws anew at each call, ``fixed`` always uses the same draws. seed: of the fixed noise.
        rows_per_pass: (image, draw) pairs evaluated at once.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        *,
        eta: float = 8 / 255,
        steps: int = 5,
        step_size: float = 0.1,
        optimizer: Optimizer = "adam",
        sigma: tuple[float, float] = (0.4, 0.6),
        draws: int = 1,
        gradient: Gradient = "exact",
        noise: Literal["shared", "fixed"] = "shared",
        seed: int = 0,
        rows_per_pass: int = 128,
    ) -> None:
        super().__init__()
        _check("optimizer", optimizer, OPTIMIZERS)
        _check("gradient", gradient, GRADIENTS)
        self.denoiser = denoiser
        self.eta = eta
        self.steps = steps
        self.step_size = step_size
        self.optimizer = optimizer
        self.sigma = sigma
        self.draws = draws
        self.gradient = gradient
        self.noise = noise
        self.seed = seed
        self.rows_per_pass = rows_per_pass

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same image may differ."""
        return self.noise != "fixed"

    def differentiated(self, gradient: Gradient) -> LikelihoodMaximization:
        """The same maximisation, with the same weights and draws, whose gradient is the one asked for."""
        _check("gradient", gradient, GRADIENTS)
        view = copy.copy(self)
        view.gradient = gradient
        return view

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to images of the same shape and range."""
        keys: Sequence[Key] = row_keys(len(x)) if self.stochastic else [("fixed", self.seed)] * len(x)
        if self.gradient == "bpda":
            with torch.no_grad():
                moved = self.trajectory(x, keys)[-1].x
            return x + (moved - x).detach()
        operation = _ExactGradient if self.gradient == "exact" else _SurrogateGradient
        out: Tensor = operation.apply(x, self, keys)
        return out

    def trajectory(self, x: Tensor, keys: Sequence[Key], update: Update | None = None) -> list[Iterate]:
        """The N + 1 iterates from ``x``; each but the last with the gradient taken there. Keeps no graph.

        Args: update: the step that is taken, :meth:`update` or :meth:`smooth_update`.
        """
        update = update or self.update
        zero = torch.zeros_like(x)
        iterates = [Iterate(x.detach(), zero, zero, zero)]
        for step in range(self.steps):
            here = iterates[-1]
            here = here._replace(gradient=self._gradient(here.x, keys, step))
            iterates[-1] = here
            iterates.append(Iterate(*update(x.detach(), here, step), zero))
        return iterates

    def update(self, x: Tensor, here: Iterate, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """One step from ``here``: the new (image, first moment, second moment). Differentiable in all its tensors."""
        g, m, v = here.gradient, here.first, here.second
        if self.optimizer == "adam":  # Kingma & Ba 2015, arXiv 1412.6980, algorithm 1
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g.square()
            direction = m / (1 - 0.9 ** (step + 1)) / ((v / (1 - 0.999 ** (step + 1)) + 1e-24).sqrt() + 1e-12)
        else:
            direction = g / (g.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-24).sqrt()
        moved = here.x - self.step_size * direction
        moved = torch.maximum(torch.minimum(moved, x + self.eta), x - self.eta)
        return moved.clamp(0, 1), m, v

    def smooth_update(self, x: Tensor, here: Iterate, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the smooth surrogate, in the place of :meth:`update`.

        It descends the same objective along the gradient at unit root mean square, which counts as a constant, and
        ``η tanh(·/η)`` stands for the clamp at η. Steps longer than η would saturate it and are shortened; the image range does
        not bind. No derivative vanishes because an optimiser or a clamp cut it off.
        """
        scale = (here.gradient.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-24).sqrt().detach()
        moved = here.x - min(self.step_size, self.eta) * here.gradient / scale
        return x + self.eta * torch.tanh((moved - x) / self.eta), here.first, here.second

    def objective(self, x: Tensor, keys: Sequence[Key], step: int) -> Iterator[Tensor]:
        """``λ(σ)‖D(ẑ + σ n; σ) − ẑ‖²/d`` averaged over the draws of a step, as a sum over images and over yielded chunks."""
        pairs = torch.cartesian_prod(torch.arange(self.draws), torch.arange(len(x)))
        low, high = self.sigma
        for chunk in pairs.split(self.rows_per_pass):
            rows = [(*keys[i], "step", step, draw) for draw, i in chunk.tolist()]
            z = 2 * x[chunk[:, 1]] - 1
            sigma = (low + (high - low) * uniform([(*row, "sigma") for row in rows])).to(z)
            noise = normal(rows, z.shape[1:]).to(z)
            error = self.denoiser(z + sigma[:, None, None, None] * noise, sigma) - z
            weight = edm_weight(sigma, getattr(self.denoiser, "sigma_data", 0.5))
            yield (weight * error.square().flatten(1).mean(dim=1)).sum() / self.draws

    def _gradient(self, x: Tensor, keys: Sequence[Key], step: int) -> Tensor:
        total = torch.zeros_like(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            for value in self.objective(leaf, keys, step):
                total += torch.autograd.grad(value, leaf)[0]
        return total

    def _hessian_product(self, x: Tensor, vector: Tensor, keys: Sequence[Key], step: int) -> Tensor:
        total = torch.zeros_like(x)
        leaf = x.detach().requires_grad_(True)
        for value in self.objective(leaf, keys, step):
            (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
            total += torch.autograd.grad((gradient * vector).sum(), leaf)[0]
        return total


class Iterate(NamedTuple):
    """Where a step starts: image, Adam's moments, and the gradient of the objective there. All (B, C, H, W)."""

    x: Tensor
    first: Tensor
    second: Tensor
    gradient: Tensor


#: From (input image, iterate, number of the step) to the next (image, first moment, second moment).
Update = Callable[[Tensor, Iterate, int], tuple[Tensor, Tensor, Tensor]]


class _ExactGradient(torch.autograd.Function):
    """The whole maximisation as one operation, whose backward pass walks the steps in reverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, maximization: LikelihoodMaximization, keys: Sequence[Key]) -> Tensor:
        iterates = maximization.trajectory(x, keys)
        ctx.maximization, ctx.keys = maximization, keys
        ctx.save_for_backward(x, *(t for here in iterates[:-1] for t in here))
        return iterates[-1].x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        x, *saved = ctx.saved_tensors
        iterates = [Iterate(*saved[i : i + 4]) for i in range(0, len(saved), 4)]
        maximization = ctx.maximization
        return _pulled_back(maximization, maximization.update, x, iterates, ctx.keys, grad_output), None, None


class _SurrogateGradient(torch.autograd.Function):
    """The whole maximisation as one operation, whose backward pass is that of its smooth surrogate on the same draws."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, maximization: LikelihoodMaximization, keys: Sequence[Key]) -> Tensor:
        ctx.maximization, ctx.keys = maximization, keys
        ctx.save_for_backward(x)
        return maximization.trajectory(x, keys)[-1].x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        maximization = ctx.maximization
        iterates = maximization.trajectory(x, ctx.keys, maximization.smooth_update)[:-1]
        return _pulled_back(maximization, maximization.smooth_update, x, iterates, ctx.keys, grad_output), None, None


def _pulled_back(
    maximization: LikelihoodMaximization,
    update: Update,
    x: Tensor,
    iterates: Sequence[Iterate],
    keys: Sequence[Key],
    grad_output: Tensor,
) -> Tensor:
    """The vector-Jacobian product of a trajectory from ``x`` with the given ``update``: (B, C, H, W)."""
    adjoint = (grad_output, torch.zeros_like(x), torch.zeros_like(x))
    direct = torch.zeros_like(x)  # through the ball around x, at every step
    with torch.enable_grad():
        for step in reversed(range(len(iterates))):
            leaves = [t.detach().requires_grad_(True) for t in (x, *iterates[step])]
            out = update(leaves[0], Iterate(*leaves[1:]), step)
            parts = torch.autograd.grad(out, leaves, adjoint, allow_unused=True, materialize_grads=True)
            direct = direct + parts[0]
            through_gradient = maximization._hessian_product(leaves[1], parts[4], keys, step)
            adjoint = (parts[1] + through_gradient, parts[2], parts[3])
    return direct + adjoint[0]


def _check(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise unknown_name(what, value, known, f"Known: {', '.join(known)}.")
