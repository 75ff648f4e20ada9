"""Do the gradients of different draws point the same way?

Figure 2a of the RDC paper (arXiv 2305.15241) shows the cosine similarity between gradients of two draws. Where draws
disagree, a step along one of them is mostly noise, and an attack that averages too few fails for that reason alone.

For gradients ``g + noise`` of a fixed size, a cosine ``c`` between two draws means that the mean of ``m`` of them has the
cosine ``√(m c / (1 + (m − 1) c))`` with the true gradient ``g``.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from rdc_bench.attacks.losses import margin
from rdc_bench.diagnostics.outcome import Outcome, distribution, interval
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Plot

DRAWS = 4
#: The mean of this many draws should come this close to the true gradient. Expensive models are seldom given more a step.
AFFORDED, WANTED = 5, 0.9


def needed(cosine: float) -> float:
    """Draws whose mean has the cosine :data:`WANTED` with the true gradient, at least 1; infinite where draws do not agree."""
    if cosine <= 0:
        return math.inf
    return max(1.0, WANTED**2 * (1 - cosine) / ((1 - WANTED**2) * cosine))


#: The cosine between two draws at which :data:`AFFORDED` draws just do.
LIMIT = WANTED**2 / (AFFORDED - WANTED**2 * (AFFORDED - 1))


def examine(subject: Subject) -> Outcome:
    """Cosine similarity between the margin's gradients of several draws, at the clean images."""
    cosines = _cosines(subject) if subject.stochastic else np.ones(len(subject))
    mean = interval(cosines)
    figures = {"cosine": mean.mean, "low": mean.low, "high": mean.high}
    if math.isfinite(needed(mean.mean)):
        figures["draws to average"] = needed(mean.mean)
    plot = Plot(
        x_label="share of images in %",
        y_label="cosine similarity between two draws",
        lines=[distribution("mean over pairs of draws", cosines)],
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
    """Mean over pairs of :data:`DRAWS` draws, per image, (B,); 0 where a gradient is zero."""
    gradients = [subject.evaluate(subject.x, margin, "agreement", i).gradient.double().flatten(1) for i in range(DRAWS)]
    pairs = [torch.cosine_similarity(a, b, dim=1) for a, b in itertools.combinations(gradients, 2)]
    return torch.stack(pairs).mean(dim=0).nan_to_num().cpu().numpy()
