"""Do the gradients of different draws point the same way?

Figure 2a of the RDC paper (arXiv 2305.15241) shows the cosine similarity between gradients of two draws. Where draws
disagree, a step along one of them is mostly noise, and an attack that averages too few fails for that reason alone.
:mod:`rdc_bench.attacks.agreement` says how many are enough.
"""

from __future__ import annotations

import math

import numpy as np

from rdc_bench.attacks.agreement import WANTED, cosines, needed
from rdc_bench.attacks.losses import margin
from rdc_bench.diagnostics.outcome import Outcome, distribution, interval
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Plot

DRAWS = 4
#: Expensive models are seldom given more draws a step; the mean of these should do.
AFFORDED = 5

#: The cosine between two draws at which :data:`AFFORDED` draws just do.
LIMIT = WANTED**2 / (AFFORDED - WANTED**2 * (AFFORDED - 1))


def examine(subject: Subject) -> Outcome:
    """Cosine similarity between the margin's gradients of several draws, at the clean images."""
    found = _cosines(subject) if subject.stochastic else np.ones(len(subject))
    mean = interval(found)
    figures = {"cosine": mean.mean, "low": mean.low, "high": mean.high}
    if math.isfinite(needed(mean.mean)):
        figures["draws to average"] = needed(mean.mean)
    plot = Plot(
        x_label="share of images in %",
        y_label="cosine similarity between two draws",
        lines=[distribution("mean over pairs of draws", found)],
        limit=LIMIT,
    )
    if not subject.stochastic:
        return Outcome("pass", figures, "the model is deterministic: there is one gradient", plot)
    if mean.low >= LIMIT:
        return Outcome("pass", figures, f"draws agree: the mean of {AFFORDED} is close to the true gradient", plot)
    says = (
        f"draws disagree: the mean of {AFFORDED} is far from the true gradient, so an attack has to average more (option eot)"
    )
    return Outcome("fail" if mean.high < LIMIT else "warn", figures, says, plot)


def _cosines(subject: Subject) -> np.ndarray:
    """Mean over pairs of :data:`DRAWS` draws, per image, (B,); 0 where a gradient is zero or not finite."""
    gradients = [subject.evaluate(subject.x, margin, "agreement", i).gradient for i in range(DRAWS)]
    return cosines(gradients).nan_to_num().cpu().numpy()
