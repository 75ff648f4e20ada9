"""A cascade of attacks that spends its budget where it pays.

Cheap attacks come first, and an image that is broken leaves before the dear ones: Auto-PGD on the margin and the cross-entropy
for a few steps, on random models the selective attack, then targeted Auto-PGD towards the three likeliest classes and at last,
on deterministic models, towards all. Square, which needs no gradient, then tries its luck with few queries. It gets many where
gradients fail: at images where the gradient is exactly zero, on models that have none, and wherever those few queries went
further than all steps along the gradient.

An image of a deterministic model is broken when it is misclassified. One of a random model is shown to fresh draws after every
attack, and is broken when all of them misclassify it: then no other attack can do better, by the mean or by the worst of the
draws. What is returned fooled the most draws.

That images leave a batch changes nothing for those that stay. Of a random model, every attack of the cascade draws under keys
that belong to the image and the attack alone, whoever else is there; a deterministic model draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, attack
from rdc_bench.attacks.gradient import differentiated
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count
from rdc_bench.defenses.likelihood_maximization import Gradient
from rdc_bench.randomness import Key, draws_for
from rdc_bench.threats import LpThreat

#: Share of Square's queries that are spent to see whether gradients fail.
PROBE = 0.04
#: Standard errors by which its margin must be larger then.
SURE = 2.0
#: Classes that are tried before all others.
PROMISING = 3


class Stage(NamedTuple):
    """An attack of the cascade with its options, and whether it is for the images where the gradient fails, or for the others.

    ``probe``: where it succeeds better than all before, gradients have failed.
    """

    attack: str
    options: dict[str, Any]
    blind: bool = False
    probe: bool = False


class Judgement(NamedTuple):
    """Share of fresh draws that misclassify each image, their mean margin and its standard error; all (B,)."""

    share: Tensor
    value: Tensor
    error: Tensor


@attack("ensemble", threats=["linf", "l2"])
def ensemble(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    queries: Count = 5000,
    eot: Count = 8,
    checks: Count = 10,
    gradient: Gradient = "exact",
) -> Tensor:
    """A cascade of Auto-PGD, targeted Auto-PGD and Square, dear attacks for the images alone that cheap ones left standing.

    Options:
        steps: of the longest runs of Auto-PGD. queries: of Square, where gradients fail; 4 % of them elsewhere.
        eot: draws of the model's randomness averaged per step. checks: fresh draws that judge an image after each attack.
        gradient: exact, bpda or surrogate, where the model leaves the choice.
    """
    stochastic = bool(getattr(model, "stochastic", False))
    checks = checks if stochastic else 1
    seeds = [int(torch.randint(2**62, (), generator=g)) for g in generators]

    def keys(images: Tensor, purpose: str) -> list[Key]:
        return [("ensemble", seeds[i], purpose) for i in images.tolist()]

    everyone = torch.arange(len(x), device=x.device)
    with draws_for(keys(everyone, "gradient")):
        blind, classes = _blind(differentiated(model, gradient), x, y)
    found = x.clone()
    with draws_for(keys(everyone, "clean")):
        share, value, _ = _judged(model, x, y, checks)
    for number, stage in enumerate(stages(classes, stochastic, steps, queries, eot, gradient)):
        left = everyone[(share < 1) & (blind == stage.blind)]
        if not len(left):
            continue
        subject = [generators[i] for i in left.tolist()]
        with draws_for(keys(left, f"attack {number}")):
            function = ATTACKS.get(stage.attack).function
            proposed = function(model, x[left], y[left], threat, generators=subject, **stage.options)
        with draws_for(keys(left, f"check {number}")):
            new = _judged(model, proposed, y[left], checks)
        if stage.probe:
            blind[left] |= new.value > value[left] + SURE * new.error
        better = (new.share > share[left]) | ((new.share == share[left]) & (new.value > value[left]))
        improved = left[better]
        found[improved], share[improved], value[improved] = proposed[better], new.share[better], new.value[better]
    return found


def stages(classes: int, stochastic: bool, steps: int, queries: int, eot: int, gradient: Gradient) -> Iterator[Stage]:
    """The cascade, from the cheapest attack to the dearest."""
    common = {"eot": eot if stochastic else 1, "gradient": gradient}
    short, middling = max(steps // 10, 1), max(steps // 2, 1)
    yield Stage("apgd-margin", {"steps": short, **common})
    yield Stage("apgd-ce", {"steps": middling, **common})
    if stochastic:
        yield Stage("selective", {"steps": middling, "draws": 2 * eot, "chosen": eot, "gradient": gradient})
    if classes < 4:  # too few for targets
        yield Stage("apgd-margin", {"steps": steps, "restarts": 2, **common})
    else:
        yield Stage("apgd-t", {"steps": middling, "n_target_classes": PROMISING, **common})
        if not stochastic and classes > PROMISING + 1:
            yield Stage("apgd-t", {"steps": steps, **common})
    yield Stage("square-eot", {"queries": math.ceil(PROBE * queries), "eot": eot}, probe=True)
    yield Stage("square-eot", {"queries": queries, "eot": eot}, blind=True)


def _blind(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
    """At which images the margin has no gradient or one of exactly zero, bool (B,); and the number of classes."""
    point = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(point)
        if not logits.requires_grad:
            return torch.ones_like(y, dtype=torch.bool), logits.shape[1]
        (uphill,) = torch.autograd.grad(margin(logits, y).sum(), point, allow_unused=True)
    if uphill is None:
        return torch.ones_like(y, dtype=torch.bool), logits.shape[1]
    return (uphill == 0).flatten(1).all(dim=1), logits.shape[1]


def _judged(model: nn.Module, x: Tensor, y: Tensor, draws: int) -> Judgement:
    with torch.no_grad():
        logits = model(x.repeat(draws, 1, 1, 1))
    labels = y.repeat(draws)
    wrong = (logits.argmax(dim=1) != labels).unflatten(0, (draws, -1)).double().mean(dim=0)
    margins = margin(logits, labels).unflatten(0, (draws, -1))
    error = margins.std(dim=0) / math.sqrt(draws) if draws > 1 else torch.zeros_like(margins[0])
    return Judgement(wrong, margins.mean(dim=0), error)
