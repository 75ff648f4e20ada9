"""Measured beside reported: a model that is loaded wrongly is seldom as accurate as its authors say."""

from __future__ import annotations

from rdc_bench.cards import ModelCard
from rdc_bench.results.statistics import wilson

#: A figure this far outside the interval of what was measured is no chance, and no matter of which images were taken.
FAR = 0.05


def reported_otherwise(card: ModelCard, measured: float, n: int) -> list[str]:
    """A note for each clean accuracy that the card reports and that is far from what was ``measured`` on ``n`` images."""
    rate = wilson(measured, n)
    return [
        f"its card reports a clean accuracy of {figure.percent} % ({figure.source}), but {rate.percent} % were measured on {n} "
        "images: is it fed as it was trained, with the same normalisation?"
        for figure in card.reported
        if figure.metric == "clean" and not rate.low - FAR <= figure.value <= rate.high + FAR
    ]
