"""Intervals and tests for rates over images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Rate:
    """A rate in [0, 1] with its 95 % interval; ``value, low, high = rate``.

    ``upper``: where images are undecided, the rate if all of them were robust; ``value`` counts them as broken. Else None.
    """

    value: float
    low: float
    high: float
    upper: float | None = None

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high))

    @property
    def span(self) -> str:
        """In %: ``75.0``, or ``50.0–75.0`` where images are undecided."""
        value = f"{100 * self.value:.1f}"
        return value if self.upper is None else f"{value}–{100 * self.upper:.1f}"

    @property
    def percent(self) -> str:
        """With the interval: ``75.0 [71.1, 78.6]``, or ``50.0–75.0 [45.7, 78.6]`` where images are undecided."""
        return f"{self.span} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def as_json(self) -> dict[str, float]:
        """``value``, ``low`` and ``high``; where images are undecided, ``upper`` too."""
        return {name: bound for name, bound in asdict(self).items() if bound is not None}


def wilson(value: float, n: int, *, upper_value: float | None = None) -> Rate:
    """Wilson's 95 % score interval for a rate ``value`` over ``n`` images (Wilson 1927).

    A mean over repeats is no count of images; the interval then uses ``value · n`` successes, as if each image had been judged
    once, which is wider than the truth and so errs on the safe side.

    Args: upper_value: the rate if all undecided images were robust; the upper bound is then computed from it. None, or
        ``value`` itself, where there are none.
    """
    top = value if upper_value is None else upper_value
    # Some versions of the library pass 0 and 1 by a rounding error.
    low = max(0.0, float(proportion_confint(value * n, n, alpha=0.05, method="wilson")[0]))
    high = min(1.0, float(proportion_confint(top * n, n, alpha=0.05, method="wilson")[1]))
    return Rate(value, low, high, None if top == value else top)


class Comparison(NamedTuple):
    """Two models on the same images: difference of their rates, discordant counts, and McNemar's exact p-value."""

    difference: float
    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Exact McNemar test (McNemar 1947): under equality the discordant images fall either way with probability ½.

    Args: first, second: bool (n,), whether each model is robust on each image.
    """
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    discordant = only_first + only_second
    p_value = binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    return Comparison(float(first.mean() - second.mean()), only_first, only_second, float(p_value))
