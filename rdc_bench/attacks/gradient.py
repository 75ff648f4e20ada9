"""Gradients of randomised models (expectation over transformation, Athalye et al. 2018, arXiv 1802.00420), and of models that
leave the choice of gradient to the attacker.

A defence with an optimisation loop inside can be differentiated in more than one way. Such a module offers
``differentiated(gradient)``: itself, with the same weights, outputs and draws, but with the gradient asked for, and says in its
attribute ``gradient`` which that is.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.losses import Objective
from rdc_bench.core.randomness import common_draws
from rdc_bench.defenses.likelihood_maximization import Gradient

Noise = Literal["fresh", "common"]

#: The options of :func:`attacked_as` at the values that leave the model as it comes.
NEUTRAL = {"gradient": "exact", "noise": "fresh"}


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


class Look(NamedTuple):
    """One look at the model without its gradient: mean objective (B,), and the mean logits over draws (B, K)."""

    value: Tensor
    logits: Tensor


def look(model: nn.Module, x: Tensor, y: Tensor, loss: Objective, eot: int) -> Look:
    """:func:`evaluate` for attacks that need no gradient, or have none."""
    with torch.no_grad():
        logits = model(x.repeat(eot, 1, 1, 1))
        values = loss(logits, y.repeat(eot)).unflatten(0, (eot, -1)).mean(dim=0)
    return Look(values, logits.unflatten(0, (eot, -1)).mean(dim=0))


@contextlib.contextmanager
def attacked_as(model: nn.Module, batch: int, gradient: Gradient, noise: Noise) -> Iterator[nn.Module]:
    """The model as an attack on a ``batch`` of images chooses to see it.

    Args:
        gradient: see :func:`differentiated`.
        noise: ``fresh`` draws at each call of the model, or ``common`` to all calls, which attacks the deterministic model that
            the defender would run had its noise been fixed.
    """
    with common_draws(batch) if noise == "common" else contextlib.nullcontext():
        yield differentiated(model, gradient)


def differentiated(model: nn.Module, gradient: Gradient) -> nn.Module:
    """The model with the gradient asked for in all its parts that leave the choice, however deep they lie.

    Weights, outputs and hooks are the model's own. A model without such parts is returned as it is: nothing in it is
    approximated.

    Args: gradient: ``exact``, ``bpda`` or ``surrogate``, see :class:`rdc_bench.defenses.LikelihoodMaximization`.
    """
    own: Any = getattr(model, "differentiated", None)
    if own is not None:
        view: nn.Module = own(gradient)
        return view
    children = {name: child and differentiated(child, gradient) for name, child in model._modules.items()}
    if all(child is model._modules[name] for name, child in children.items()):
        return model
    view = copy.copy(model)
    view._modules = children
    return view


def gradient_kind(model: nn.Module, options: Mapping[str, Any]) -> str:
    """``exact``, ``bpda`` or ``surrogate``: what an attack with these options differentiates.

    An attack without the option ``gradient`` takes the model as it comes.
    """
    if "gradient" in options:
        model = differentiated(model, options["gradient"])
    declared = (getattr(part, "gradient", None) for part in model.modules())
    return next((kind for kind in declared if isinstance(kind, str)), "exact")
