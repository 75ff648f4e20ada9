"""What a check returns, and verdicts that respect sampling error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from rdc_bench.results.diagnosis import Line, Plot, Verdict
from rdc_bench.results.statistics import Comparison, Rate, mcnemar, wilson

#: McNemar's p-value below which a weaker attack is said to win, and up to which it is worth a warning: three images to none.
SIGNIFICANT, NOTABLE = 0.05, 0.25


class Outcome(NamedTuple):
    """What one check found. ``says``: what it means, in a sentence."""

    verdict: Verdict
    figures: dict[str, float]
    says: str
    plot: Plot


class Interval(NamedTuple):
    """A mean with its 95 % bounds."""

    mean: float
    low: float
    high: float


def interval(values: np.ndarray) -> Interval:
    """The mean of one value per image with Student's 95 % interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def share_verdict(affected: np.ndarray, *, warn: float, fail: float) -> tuple[Verdict, Rate]:
    """Whether the share of ``affected`` images, bool (n,), is above ``fail`` or ``warn`` even at Wilson's lower bound."""
    share = wilson(float(affected.mean()), len(affected))
    if not affected.any():
        return "pass", share
    return ("fail" if share.low > fail else "warn" if share.low > warn else "pass"), share


def weaker_wins(weaker: np.ndarray, stronger: np.ndarray) -> tuple[Verdict, Comparison]:
    """Whether an attack that should be the weaker one breaks more images than the stronger, by McNemar's exact test.

    Args: weaker, stronger: bool (n,), the images that survive each attack.
    """
    test = mcnemar(stronger, weaker)  # only_first: survives the stronger attack alone
    if test.only_first <= test.only_second or test.p_value > NOTABLE:
        return "pass", test
    return ("fail" if test.p_value < SIGNIFICANT else "warn"), test


def worse(*verdicts: Verdict) -> Verdict:
    """The worst of several verdicts."""
    order: tuple[Verdict, ...] = ("pass", "warn", "fail")
    return max(verdicts, key=order.index)


def rates_line(label: str, x: Sequence[float], survives: Sequence[np.ndarray]) -> Line:
    """Robust accuracy in % with Wilson bounds, one point for each array of surviving images."""
    rates = [wilson(float(s.mean()), len(s)) for s in survives]
    return Line(
        label=label,
        x=list(x),
        y=[100 * rate.value for rate in rates],
        low=[100 * rate.low for rate in rates],
        high=[100 * rate.high for rate in rates],
    )


def distribution(label: str, values: np.ndarray) -> Line:
    """One value per image, in ascending order, against the share of images in % that lie at or below it."""
    ordered = np.sort(values)
    return Line(label=label, x=(100 * np.arange(1, len(ordered) + 1) / len(ordered)).tolist(), y=ordered.tolist())
