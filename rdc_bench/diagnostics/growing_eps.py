"""Does robust accuracy fall to nothing when the attacker may do anything?

Within ℓ∞ distance 1/2 of any image lies uniform grey (and within √d/2 in ℓ2), so that no model can be robust there. One that
survives, survives because the attack fails (Athalye et al. 2018, arXiv 1802.00420, section 3.1: "unbounded attacks do not
reach 100 % success"; "increasing distortion bound does not increase success").
"""

from __future__ import annotations

import itertools

from rdc_bench.diagnostics.outcome import Outcome, rates_line, share_verdict, weaker_wins, worse
from rdc_bench.diagnostics.subject import Subject
from rdc_bench.results.diagnosis import Plot
from rdc_bench.threats import LpThreat

#: Each size is this many times the one before, up to the one that reaches grey.
FACTOR = 4
#: Shares of images that may survive at the largest size, before a warning and before a failure.
WARN, FAIL = 0.0, 0.05


def examine(subject: Subject) -> Outcome:
    """Robust accuracy under the white-box attack at growing sizes."""
    sizes = _sizes(subject.threat, subject.threat.max_eps(subject.x.shape[1:]) / 2)
    survives = [subject.survives_white_box]
    for eps in sizes[1:]:
        ascent = subject.ascend(LpThreat(subject.threat.norm, eps), 1, "growing eps", str(eps))
        survives.append(subject.survives(ascent.points))
    top, share = share_verdict(survives[-1], warn=WARN, fail=FAIL)
    rises = worse(*(weaker_wins(smaller, larger)[0] for smaller, larger in itertools.pairwise(survives)), "pass")
    everything = [subject.survives(subject.x), *survives]
    figures = {f"robust at eps {eps:.4g}": float(s.mean()) for eps, s in zip([0.0, *sizes], everything, strict=True)}
    figures |= {"survivors, lower bound": share.low}
    plot = Plot(
        x_label=f"eps ({subject.threat.norm})",
        y_label="robust accuracy in %",
        lines=[rates_line("white-box attack", [0.0, *sizes], everything)],
        limit=0.0,
    )
    says = {
        "pass": "nothing survives an attacker who can reach uniform grey",
        "warn": "an image survives, or more survive at a larger size: the attack is not quite at its best",
        "fail": "images survive that could be made uniform grey, or a larger size breaks fewer: the attack fails",
    }
    verdict = worse(top, rises)
    return Outcome(verdict, figures, says[verdict], plot)


def _sizes(threat: LpThreat, largest: float) -> list[float]:
    """From the threat's own size in equal ratios to ``largest``."""
    sizes = [threat.eps]
    while sizes[-1] * FACTOR < largest:
        sizes.append(sizes[-1] * FACTOR)
    return [*sizes, largest] if sizes[-1] < largest else sizes
