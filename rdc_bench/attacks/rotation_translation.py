"""Rotations and translations that fool a model (Engstrom et al. 2019, arXiv 1712.02779)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import look
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count, StepSize
from rdc_bench.threats import RotationTranslationThreat
from rdc_bench.threats.lp import linf
from rdc_bench.threats.rotation_translation import transform


@attack("rotation-translation", threats=["rotation-translation"])
def rotation_translation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: RotationTranslationThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 20,
    step_size: StepSize = 0.0,
    restarts: Count = 5,
    eot: Count = 1,
) -> Tensor:
    """Signed gradient ascent on angle and shifts from random starts (the first-order attack of Engstrom et al. 2019).

    The margin has many local maxima in these three parameters, so that restarts, or the grid, find more than steps do.

    Options:
        steps: per restart. step_size: in units of eps; 0 means 2.5 eps / steps. restarts: independent random starts.
        eot: draws of the model's randomness averaged per step.
    """
    return ascend(
        model,
        x,
        y,
        linf(threat.eps),
        (3,),
        lambda parameters: transform(x, parameters),
        generators=generators,
        allowed=lambda moved: moved.clamp(0, 1),
        objective=margin,
        steps=steps,
        step_size=step_size or 2.5 * threat.eps / steps,
        eot=eot,
        restarts=restarts,
    )


@attack("rotation-translation-grid", threats=["rotation-translation"], gradient="black-box")
def rotation_translation_grid(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: RotationTranslationThreat,
    *,
    generators: Sequence[torch.Generator],
    rotations: Count = 31,
    translations: Count = 5,
    eot: Count = 1,
) -> Tensor:
    """The worst point of a grid over angle and shifts, the strongest attack of Engstrom et al. 2019.

    Options:
        rotations: angles. translations: shifts along each axis. eot: draws of the model's randomness averaged per point.
    """
    angles, shifts = (torch.linspace(-threat.eps, threat.eps, count).tolist() for count in (rotations, translations))
    points = torch.tensor(list(itertools.product(angles, shifts, shifts))).to(x)
    best = Best(model, x)
    for point in points:
        if not best.complete:
            _offer(best, model, x, y, point.expand(len(x), 3), eot)
    return best.points


@attack("rotation-translation-random", threats=["rotation-translation"], gradient="black-box")
def rotation_translation_random(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: RotationTranslationThreat,
    *,
    generators: Sequence[torch.Generator],
    queries: Count = 10,
    eot: Count = 1,
) -> Tensor:
    """The worst of a few random transformations (worst-of-k, Engstrom et al. 2019).

    Options:
        queries: transformations tried. eot: draws of the model's randomness averaged for each.
    """
    best = Best(model, x)
    for _ in range(queries):
        if not best.complete:
            _offer(best, model, x, y, _random(threat, generators, x), eot)
    return best.points


def _random(threat: RotationTranslationThreat, generators: Sequence[torch.Generator], x: Tensor) -> Tensor:
    """Parameters uniform within ε, (B, 3)."""
    return threat.eps * linf(threat.eps).uniform((len(x), 3), generators).to(x)


def _offer(best: Best, model: nn.Module, x: Tensor, y: Tensor, parameters: Tensor, eot: int) -> None:
    """Show the model one transformation (B, 3) of each image."""
    points = transform(x, parameters).clamp(0, 1)
    best.offer(points, *look(model, points, y, margin, eot), y)
