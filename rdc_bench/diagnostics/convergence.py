"""Does the attack climb, and does it arrive?

A loss that does not rise from a random start means that the gradient leads nowhere (Pintor et al. 2022, arXiv 2106.09947,
indicators "unavailable gradients" and "incomplete optimization"). Restarts that keep finding more (Carlini et al. 2019, arXiv
1902.06705, section 4) mean that one start is not enough; that is a warning, because more of them mend it.
"""

from __future__ import annotations

import numpy as np

from rdc_bench.attacks.losses import margin
from rdc_bench.diagnostics.outcome import Outcome, interval, share_verdict, weaker_wins, worse
from rdc_bench.diagnostics.subject import RESTARTS, STEPS, Subject
from rdc_bench.results.diagnosis import Line, Plot, Verdict

#: Shares of images whose loss does not rise, before a warning and before a failure.
WARN, FAIL = 0.05, 0.25


def examine(subject: Subject) -> Outcome:
    """The margin at the start and the end of the first ascent, under the same draws; images broken by one start and by all."""
    ascent = subject.white_box
    start, end = (margin(subject.logits(point, "convergence"), subject.y).cpu().numpy() for point in ascent[2:4])
    verdict, stuck = share_verdict(~(end > start), warn=WARN, fail=FAIL)
    one = subject.survives(ascent.first)
    restarts, test = weaker_wins(one & subject.survives_white_box, one)
    figures = {
        "images whose loss does not rise": stuck.value,
        "robust after one start": float(one.mean()),
        f"robust after {RESTARTS} starts": float(subject.survives_white_box.mean()),
        "p of the difference": test.p_value,
    }
    gain: Verdict = "pass" if restarts == "pass" else "warn"
    says = {
        "pass": "the loss rises, and further starts find little more",
        "warn": f"the loss does not rise on some images, or further starts find more than one does: use more than {RESTARTS}",
        "fail": "the loss does not rise along the gradient: the gradient leads nowhere",
    }
    verdict = worse(verdict, gain)
    return Outcome(verdict, figures, says[verdict], _plot(ascent.margins.double().cpu().numpy()))


def _plot(margins: np.ndarray) -> Plot:
    """``margins``: (restarts, steps + 1, images)."""
    lines = []
    for number, history in enumerate(margins, 1):
        bounds = [interval(step) for step in history]
        band = number == 1 and len(history[0]) > 1
        lines.append(
            Line(
                label=f"start {number}",
                x=list(range(STEPS + 1)),
                y=[b.mean for b in bounds],
                low=[b.low for b in bounds] if band else None,
                high=[b.high for b in bounds] if band else None,
            )
        )
    return Plot(x_label="step", y_label="margin, mean over images", lines=lines)
