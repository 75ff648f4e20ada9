"""Attacks that should be weaker, beside the white-box attack."""

from __future__ import annotations

import numpy as np

from rdc_bench.diagnostics.outcome import Outcome, rates_line, weaker_wins
from rdc_bench.diagnostics.subject import RESTARTS, STEPS, Subject
from rdc_bench.results.diagnosis import Plot, Verdict


def against_white_box(subject: Subject, rivals: dict[str, np.ndarray], says: dict[Verdict, str]) -> Outcome:
    """Compare attacks that know less with the white-box attack; the images that all of them together break count.

    Args: rivals: by name, the images that survive each, bool (B,). says: the meaning of each verdict.
    """
    union = np.logical_and.reduce(list(rivals.values()))
    verdict, test = weaker_wins(union, subject.survives_white_box)
    figures = {f"robust against {name}": float(survives.mean()) for name, survives in rivals.items()}
    figures |= {
        "robust against the white-box attack": float(subject.survives_white_box.mean()),
        "broken by the weaker attack alone": float(test.only_first),
        "broken by the white-box attack alone": float(test.only_second),
        "p of the difference": test.p_value,
    }
    shown = {**rivals, f"white-box, {RESTARTS} starts × {STEPS} steps": subject.survives_white_box}
    plot = Plot(
        x_label="",
        y_label="robust accuracy in %",
        lines=[rates_line(name, [float(place)], [survives]) for place, (name, survives) in enumerate(shown.items())],
    )
    return Outcome(verdict, figures, says[verdict], plot)
