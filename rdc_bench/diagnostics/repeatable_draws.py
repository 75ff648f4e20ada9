"""Can the model's randomness be held fixed, and does the model own up to it?

An evaluation that cannot show a model the same draws twice can neither average its gradient soundly nor check its own
records. A model that is randomised without saying so is judged by a single draw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rdc_bench.diagnostics.outcome import Outcome, distribution
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Plot

#: Largest change of a logit, as a share of the spread of an image's logits, that passes for rounding. AutoAttack's own check
#: for randomised models allows 1e-4 on normalised logits.
TOLERANCE = 1e-4


def examine(subject: Subject) -> Outcome:
    """Compare the logits of two calls under the same draws, and of two calls under different ones."""
    first, again = (subject.logits(subject.x, "draws", 0) for _ in range(2))
    other = subject.logits(subject.x, "draws", 1)
    scale = (first.amax(dim=1) - first.amin(dim=1)).clamp_min(1e-12)
    same, different = _change(first, again, scale), _change(first, other, scale)
    figures = {"change under the same draws": float(same.max()), "change under other draws": float(different.max())}
    declared = bool(getattr(subject.model.model, "stochastic", False))
    repeatable, varies = figures["change under the same draws"] <= TOLERANCE, max(figures.values()) > TOLERANCE
    floor = 1e-9
    plot = Plot(
        x_label="share of images in %",
        y_label="change of a logit / spread of the logits",
        lines=[
            distribution("same draws", same.clamp_min(floor).cpu().numpy()),
            distribution("other draws", different.clamp_min(floor).cpu().numpy()),
        ],
        log_y=True,
        limit=TOLERANCE,
    )
    if not repeatable:
        says = (
            "the model draws from a generator that nothing controls: its randomness cannot be held fixed, nor a record checked"
        )
        return Outcome("fail", figures, says, plot)
    if varies and not declared:
        says = "the model is randomised but has no attribute `stochastic = True`: it would be judged by a single draw"
        return Outcome("fail", figures, says, plot)
    says = "randomised, and the same draws give the same logits" if varies else "deterministic"
    return Outcome("pass", figures, says, plot)


def _change(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Largest change of a logit per image, relative to the spread; +inf where logits are not finite, (B,)."""
    return torch.nan_to_num((a - b).abs().amax(dim=1) / scale, nan=1e9, posinf=1e9)
