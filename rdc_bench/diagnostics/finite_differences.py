"""Is the gradient that of the function?

Along a unit direction ``v`` the gradient ``g`` predicts the slope ``g·v``, and ``(f(x + hv) − f(x − hv)) / 2h`` measures it,
with the same draws on both sides (common random numbers). The direction of ``g`` itself shows a gradient that promises too
much; random directions show what is missing from it. A backward pass that approximates (BPDA), a detached branch and a
function that jumps all disagree; a right gradient agrees at a step that is neither so small that rounding shows nor so large
that curvature does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rdc_bench.attacks.losses import margin
from rdc_bench.diagnostics.outcome import Outcome, share_verdict, worse
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Line, Plot, Verdict

#: Images are moved this far from the ends of [0, 1], so that no step leaves the range; also the longest step.
INSIDE = 4 / 255
STEPS = (INSIDE / 16, INSIDE / 4, INSIDE)
RANDOM_DIRECTIONS = 4
#: ``|measured − predicted| / (|measured| + |predicted|)`` above which they disagree: one is more than 1.67 times the other.
TOLERANCE = 0.25
#: Shares of images on which they may disagree at every step, before a warning and before a failure.
WARN, FAIL = 0.05, 0.25


def examine(subject: Subject) -> Outcome:
    """Compare predicted and measured slopes of the margin, along the gradient and along random directions."""
    x = subject.x.clamp(INSIDE, 1 - INSIDE)
    gradient = subject.evaluate(x, margin, "finite differences").gradient.nan_to_num()
    along = _unit(gradient)[None]
    random = torch.stack(
        [torch.randn(RANDOM_DIRECTIONS, *x.shape[1:], generator=g) for g in subject.generators("finite differences")], dim=1
    )
    errors = {
        "along the gradient": _errors(subject, x, gradient, along),
        "random directions": _errors(subject, x, gradient, _unit(random.flatten(0, 1)).view_as(random).to(x)),
    }
    verdicts: list[Verdict] = []
    figures: dict[str, float] = {}
    for name, error in errors.items():
        least = error.min(axis=0)
        verdict, share = share_verdict(least > TOLERANCE, warn=WARN, fail=FAIL)
        verdicts.append(verdict)
        figures |= {f"disagreeing images, {name}": share.value, f"median error, {name}": float(np.median(least))}
    plot = Plot(
        x_label="length of the step h",
        y_label="median error of the slope",
        lines=[Line(label=name, x=list(STEPS), y=np.median(error, axis=1).tolist()) for name, error in errors.items()],
        log_x=True,
        limit=TOLERANCE,
    )
    verdict = worse(*verdicts)
    if verdict == "pass":
        return Outcome(verdict, figures, "the gradient predicts how the margin changes", plot)
    if getattr(subject.model.model, "gradient", "exact") == "bpda":
        says = "the gradient is not the function's, as the model declares (BPDA): figures from it are upper bounds"
        return Outcome("warn", figures, says, plot)
    says = (
        "the gradient is not the function's: a backward pass that approximates, a detached branch, jumps, or uncontrolled draws"
    )
    return Outcome(verdict, figures, says, plot)


def _errors(subject: Subject, x: Tensor, gradient: Tensor, directions: Tensor) -> np.ndarray:
    """Relative error of the slopes along ``directions`` (D, B, C, H, W), for each step and image: (steps, B).

    Slopes that are zero on both sides agree.
    """
    predicted = (gradient * directions).double().flatten(2).sum(dim=2)
    errors = []
    for h in STEPS:
        measured = torch.stack([(_value(subject, x + h * v) - _value(subject, x - h * v)) / (2 * h) for v in directions])
        size = measured.norm(dim=0) + predicted.norm(dim=0)
        errors.append(torch.where(size > 0, (measured - predicted).norm(dim=0) / size, 0))
    return torch.stack(errors).nan_to_num(nan=1.0).cpu().numpy()


def _value(subject: Subject, x: Tensor) -> Tensor:
    """The margin, (B,), in float64, under the draws of this check."""
    return margin(subject.logits(x, "finite differences").double(), subject.y)


def _unit(directions: Tensor) -> Tensor:
    """Each of (B, C, H, W) at length one; zero stays zero."""
    return directions / directions.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None, None]
