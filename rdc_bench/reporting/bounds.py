"""How tables mark figures that are upper bounds only, because something casts doubt on the attacks behind them."""

from __future__ import annotations

from collections.abc import Iterable

from rdc_bench.results.summary import ModelSummary
from rdc_bench.results.trust import NEXT

#: Before a figure that the truth may be below.
UPPER = "≤"


def bounded(text: str, *summaries: ModelSummary) -> str:
    """A robust accuracy as text, marked where there are doubts about any of the summaries that it comes from."""
    return f"{UPPER} {text}" if any(summary.upper_bound for summary in summaries) else text


def footnotes(summaries: Iterable[ModelSummary]) -> list[str]:
    """What the mark means: a line for every model and doubt, with the next step."""
    doubts = dict.fromkeys((summary.model, doubt) for summary in summaries for doubt in summary.doubts)
    return [f"{UPPER} upper bound: {model}: {doubt}; {NEXT}" for model, doubt in doubts]


def doubt_columns(summary: ModelSummary) -> dict[str, bool | str]:
    """The columns of CSV that say so."""
    return {"upper_bound": summary.upper_bound, "doubts": "; ".join(summary.doubts)}
