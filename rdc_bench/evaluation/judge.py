"""Predictions and verdicts. Attacks propose images; whether they count is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.evaluation.watch import Seen
from rdc_bench.global_generators import model_apart
from rdc_bench.randomness import Key, draws_for, seed_of
from rdc_bench.threats import Threat


def predictions(model: nn.Module, x: Tensor, keys: Sequence[Key], repeats: int) -> Tensor:
    """Predicted classes under ``repeats`` fresh draws of the model's randomness, (B, repeats); −1 for logits not finite.

    Args: x: (B, C, H, W). keys: of the draws, one per image.
    """
    with torch.no_grad(), draws_for(keys), model_apart(model, x.device, seed_of(*next(iter(keys), ()), "model")):
        logits = model(x.repeat(repeats, 1, 1, 1))
    predicted = logits.argmax(dim=1).masked_fill(~torch.isfinite(logits).all(dim=1), -1)
    return predicted.unflatten(0, (repeats, -1)).T.cpu()


class Verdict(NamedTuple):
    """Whether an attack's image may be judged at all: ``status`` ok or invalid, and why not."""

    status: str
    reason: str | None = None


OK = Verdict("ok")


def followed(seen: Seen) -> Verdict:
    """Whether an attack that differentiates the model, and did not break an image, has attacked it at all."""
    if seen.gradients == "never":
        return Verdict("failed", "every gradient that came back was zero or not finite, so there was nothing to follow")
    if seen.gradients is None:
        return Verdict("failed", "the attack took no gradient here; declare it with gradient='black-box' if it needs none")
    return OK


def check(threat: Threat, x: Tensor, candidate: object) -> list[Verdict]:
    """One verdict per image of ``x`` on what an attack returned for the batch."""
    if not isinstance(candidate, Tensor):
        return [Verdict("invalid", f"returned {type(candidate).__name__}, not a tensor")] * len(x)
    if candidate.shape != x.shape:
        return [Verdict("invalid", f"returned shape {tuple(candidate.shape)} for images of shape {tuple(x.shape)}")] * len(x)
    finite = torch.isfinite(candidate).flatten(1).all(dim=1).tolist()
    allowed = threat.contains(x, candidate).tolist()
    verdicts = []
    for i, (is_finite, is_allowed) in enumerate(zip(finite, allowed, strict=True)):
        if not is_finite:
            verdicts.append(Verdict("invalid", "returned an image with values that are not finite"))
        elif not is_allowed:
            d = threat.distance(x[i : i + 1], candidate[i : i + 1]).item()
            verdicts.append(Verdict("invalid", f"left the threat set: distance {d:.6g} (allowed {threat.eps:.6g}) or range"))
        else:
            verdicts.append(OK)
    return verdicts
