"""What the runs of a recipe amount to: one row per model, one column per step, and all steps together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from rdc_bench.evaluation.run import RunResult
from rdc_bench.reporting.bounds import bounded
from rdc_bench.results.across import StoredRun, together
from rdc_bench.results.summary import ModelSummary

#: The column of all steps together.
ALL = "all together"


class Row(NamedTuple):
    """One model. ``by_step``: its summary under each step that attacked it; ``together``: over the union of all steps."""

    model: str
    title: str
    by_step: dict[str, ModelSummary]
    together: ModelSummary

    def as_json(self) -> dict[str, Any]:
        """The model's object in ``reproduce --json``: that of ``run --json`` over all steps, and one for each step."""
        return {**self.together.as_json(), "steps": {label: m.as_json() for label, m in self.by_step.items()}}


class Done(NamedTuple):
    """A step that was carried out: its label, and its run with the records."""

    label: str
    result: RunResult
    stored: StoredRun


def rows_of(steps: Sequence[Done]) -> list[Row]:
    """One row per model, in the order of their first appearance.

    A model's images are those that no step broke: the same images, judged by the same draws, so that the union over steps is
    that over attacks within one run.
    """
    rows: dict[str, dict[str, ModelSummary]] = {}
    runs: dict[str, list[StoredRun]] = {}
    for label, result, stored in steps:
        for summary in result.models:
            rows.setdefault(summary.model, {})[label] = summary
            runs.setdefault(summary.model, []).append(stored)
    return [Row(model, _title(by_step), by_step, together(model, runs[model])) for model, by_step in rows.items()]


def table(rows: list[Row]) -> pd.DataFrame:
    """``avg / worst`` in % per step, and the union of all steps with intervals."""
    labels = list(dict.fromkeys(label for row in rows for label in row.by_step))
    lines = []
    for row in rows:
        line = {"model": row.model, "clean": row.together.clean.percent}
        line |= {label: _cell(row.by_step.get(label)) for label in labels}
        line |= {f"{ALL}, {sense}": bounded(getattr(row.together, sense).percent, row.together) for sense in ("avg", "worst")}
        lines.append(line)
    return pd.DataFrame(lines)


def long_table(rows: list[Row]) -> pd.DataFrame:
    """One line per model and step (and all steps together), rates as fractions."""
    lines = []
    for row in rows:
        for label, summary in {**row.by_step, ALL: row.together}.items():
            line: dict[str, Any] = {"model": row.model, "step": label, "n": len(summary.robust_images)}
            for sense in ("clean", "avg", "majority", "worst"):
                rate = getattr(summary, sense)
                line |= {sense: rate.value, f"{sense}_low": rate.low, f"{sense}_high": rate.high}
            lines.append({**line, "undecided": summary.undecided})
    return pd.DataFrame(lines)


def _cell(summary: ModelSummary | None) -> str:
    return "–" if summary is None else bounded(f"{summary.avg.span} / {summary.worst.span}", summary)


def _title(by_step: dict[str, ModelSummary]) -> str:
    return next(iter(by_step.values())).title
