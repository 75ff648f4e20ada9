"""Auto-PGD (Croce & Hein 2020, arXiv 2003.01690, algorithm 1), batched, with expectation over transformation.

Each image has a step size of its own. It starts at 2 eps and is halved at checkpoints where the objective no longer rises,
from where the image goes on at its best point. Where the paper and the authors' code differ in the choice of checkpoints, this
follows the code. Images are never dropped: a batch runs until its last image is fooled, or to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import NEUTRAL, Noise, attacked_as, evaluate
from rdc_bench.attacks.losses import Objective, cross_entropy, dlr, dlr_targeted, margin
from rdc_bench.attacks.options import Count, Share, least_classes
from rdc_bench.defenses.likelihood_maximization import Gradient
from rdc_bench.threats import LpThreat

#: Weight of the gradient step against the momentum (alpha in the paper).
GRADIENT_SHARE = 0.75


@attack("apgd-ce", threats=["linf", "l2"], neutral=NEUTRAL)
def apgd_ce(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    eot: Count = 1,
    restarts: Count = 1,
    rho: Share = 0.75,
    gradient: Gradient = "exact",
    noise: Noise = "fresh",
) -> Tensor:
    """Auto-PGD on the cross-entropy (Croce & Hein 2020, arXiv 2003.01690).

    Options:
        steps: per restart. eot: draws of the model's randomness averaged per step. restarts: independent random starts.
        rho: share of rising steps below which the step size is halved.
        gradient: exact, bpda or surrogate, where the model leaves the choice.
        noise: of a randomised model, fresh at each step or common to all.
    """
    with attacked_as(model, len(x), gradient, noise) as seen:
        return _maximise(seen, x, y, threat, generators, lambda _: [cross_entropy], steps, eot, restarts, rho)


@attack("apgd-dlr", threats=["linf", "l2"], neutral=NEUTRAL, check=least_classes(3))
def apgd_dlr(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    eot: Count = 1,
    restarts: Count = 1,
    rho: Share = 0.75,
    gradient: Gradient = "exact",
    noise: Noise = "fresh",
) -> Tensor:
    """Auto-PGD on the difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690). Options as for apgd-ce."""
    with attacked_as(model, len(x), gradient, noise) as seen:
        return _maximise(seen, x, y, threat, generators, lambda _: [dlr], steps, eot, restarts, rho)


@attack("apgd-margin", threats=["linf", "l2"], neutral=NEUTRAL)
def apgd_margin(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    eot: Count = 1,
    restarts: Count = 1,
    rho: Share = 0.75,
    gradient: Gradient = "exact",
    noise: Noise = "fresh",
) -> Tensor:
    """Auto-PGD on the margin of the logits, which neither saturates nor needs three classes. Options as for apgd-ce."""
    with attacked_as(model, len(x), gradient, noise) as seen:
        return _maximise(seen, x, y, threat, generators, lambda _: [margin], steps, eot, restarts, rho)


@attack("apgd-t", threats=["linf", "l2"], neutral=NEUTRAL, check=least_classes(4))
def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    eot: Count = 1,
    restarts: Count = 1,
    rho: Share = 0.75,
    n_target_classes: Count = 9,
    gradient: Gradient = "exact",
    noise: Noise = "fresh",
) -> Tensor:
    """Auto-PGD towards each of the likeliest wrong classes (Croce & Hein 2020, arXiv 2003.01690, eq. 7).

    Options:
        n_target_classes: how many, at most K − 1; steps and restarts are for each. The others as for apgd-ce.
    """

    def objectives(logits: Tensor) -> list[Objective]:
        wrong = logits.scatter(1, y[:, None], -torch.inf)
        targets = wrong.topk(min(n_target_classes, logits.shape[1] - 1), dim=1).indices
        return [_towards(target) for target in targets.unbind(dim=1)]

    with attacked_as(model, len(x), gradient, noise) as seen:
        return _maximise(seen, x, y, threat, generators, objectives, steps, eot, restarts, rho)


def checkpoints(steps: int) -> dict[int, int]:
    """The steps after which step sizes are reviewed, each with the number of steps since the last (section 3.2).

    Intervals shrink from 22 % of all steps by 3 % each time, down to 6 %.
    """
    interval, decrement, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    reviews = {}
    step = interval
    while step <= steps:
        reviews[step] = interval
        interval = max(interval - decrement, least)
        step += interval
    return reviews


def _maximise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    generators: Sequence[torch.Generator],
    objectives: Callable[[Tensor], Sequence[Objective]],
    steps: int,
    eot: int,
    restarts: int,
    rho: float,
) -> Tensor:
    """Run Auto-PGD for every objective and restart; the best points (B, C, H, W).

    Args: objectives: from the mean logits on clean images, (B, K), to what is maximised in turn.
    """
    with torch.no_grad():
        logits = model(x.repeat(eot, 1, 1, 1)).unflatten(0, (eot, -1)).mean(dim=0)
    best = Best(model, x)
    # Settles the images that a deterministic model gets wrong as they are.
    best.offer(x, torch.full_like(logits[:, 0], -torch.inf), logits, y)
    for objective in objectives(logits):
        for _ in range(restarts):
            if not best.complete:
                _ascend(model, x, y, threat, threat.random_start(x, generators), objective, best, steps, eot, rho)
    return best.points


def _ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    start: Tensor,
    objective: Objective,
    best: Best,
    steps: int,
    eot: int,
    rho: float,
) -> None:
    """One run from ``start``, every point offered to ``best``."""
    point = previous = start
    value, gradient, logits = evaluate(model, point, y, objective, eot)
    best.offer(point, value, logits, y)
    top, top_value, top_gradient = point, value, gradient
    reviewed_value, halved = value, torch.ones_like(y, dtype=torch.bool)
    step_size = torch.full_like(value, 2 * threat.eps)
    rises = torch.zeros_like(y)
    reviews = checkpoints(steps)
    for step in range(1, steps + 1):
        if best.complete:
            return
        momentum = point - previous
        previous = point
        ahead = threat.project(x, point + _per_pixel(step_size) * threat.steepest(gradient, x))
        if step > 1:
            mixed = point + GRADIENT_SHARE * (ahead - point) + (1 - GRADIENT_SHARE) * momentum
            ahead = threat.project(x, mixed)
        point, last_value = ahead, value
        value, gradient, logits = evaluate(model, point, y, objective, eot)
        best.offer(point, value, logits, y)
        rises += value > last_value
        higher = value > top_value
        top, top_gradient = _where(higher, point, top), _where(higher, gradient, top_gradient)
        top_value = torch.where(higher, value, top_value)
        if step in reviews:
            stuck = ~halved & (top_value <= reviewed_value)
            halved = (rises <= rho * reviews[step]) | stuck
            step_size = torch.where(halved, step_size / 2, step_size)
            point, gradient = _where(halved, top, point), _where(halved, top_gradient, gradient)
            reviewed_value = top_value
            rises = torch.zeros_like(rises)


def _towards(target: Tensor) -> Objective:
    """The targeted objective for one target class per image, (B,); logits may hold several copies of the batch."""
    return lambda logits, y: dlr_targeted(logits, y, target.repeat(len(y) // len(target)))


def _per_pixel(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(_per_pixel(condition), yes, no)
