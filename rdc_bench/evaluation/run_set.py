"""Running a set of threats: one run after another, each as if its threat had been named alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from rdc_bench.evaluation.engines import find_engine
from rdc_bench.evaluation.plan import RunConfig, Skipped, make_plan_set
from rdc_bench.evaluation.run import Progress, RunResult, Say, Step, begun, carry_out, work
from rdc_bench.results.across import SideBySide, StoredRun, side_by_side
from rdc_bench.results.statistics import Rate
from rdc_bench.results.store import RunFolder
from rdc_bench.results.summary import SENSES


@dataclass(frozen=True)
class RunSet:
    """The finished runs of a set, and the threats of it that could not be evaluated here."""

    name: str
    runs: list[RunResult]
    skipped: list[Skipped]

    @property
    def complete(self) -> bool:
        """Whether every attack of every run gave a verdict on every image."""
        return all(run.complete for run in self.runs)

    @cached_property
    def table(self) -> SideBySide:
        """The runs side by side."""
        (table,) = side_by_side(StoredRun.read(RunFolder(run.path)) for run in self.runs)
        return table

    def summary(self) -> pd.DataFrame:
        """One row per model: clean and, under each threat, robust accuracy; then union, mean and lowest over all of them."""
        rows = []
        for row in self.table.rows:
            over = row.over[self.name]
            rates: dict[str, Rate] = {"clean": row.clean}
            for column in self.table.columns:
                rates |= {f"{column.threat}_{sense}": getattr(row.cells[column.label], sense) for sense in SENSES}
            rates |= {f"union_{sense}": getattr(over.union, sense) for sense in SENSES}
            flat: dict[str, Any] = {"model": row.model, "role": over.union.role, "status": over.union.status}
            for name, rate in rates.items():
                flat |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
            flat |= {f"mean_{sense}": over.mean[sense] for sense in SENSES}
            flat |= {f"lowest_{sense}": over.lowest[sense][0] for sense in SENSES}
            rows.append(flat | {"lowest_threat": over.lowest["worst"][1], "undecided": over.union.undecided})
        return pd.DataFrame(rows)

    def as_json(self) -> dict[str, Any]:
        """The document that ``rdc-bench run --json`` prints for a set."""
        return {
            "threat": self.name,
            "runs": [run.as_json() for run in self.runs],
            "skipped": [{"threat": skipped.threat, "reason": skipped.reason} for skipped in self.skipped],
            "summary": [row.over[self.name].as_json() for row in self.table.rows],
        }


def run_set(config: RunConfig, progress: Progress = lambda step: None, say: Say = lambda line: None) -> RunSet:
    """Evaluate every threat of the set ``config.threat``. Resumes as :func:`rdc_bench.evaluation.run.run` does.

    Raises: as that does.
    """
    find_engine(config.engine)  # which may be unknown or not installed: before data are looked for
    planned = make_plan_set(config)
    total = sum(work(plan) for plan in planned.plans)
    runs: list[RunResult] = []
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    done = 0
    with begun(planned.plans, say) as admissions:
        for plan in planned.plans:
            runs.append(carry_out(plan, _within(progress, done, total), once, admissions))
            done += work(plan)
    return RunSet(planned.name, runs, planned.skipped)


def _within(progress: Progress, done: int, total: int) -> Callable[[Step], None]:
    """``progress`` of a part, as that of the whole."""
    return lambda step: progress(replace(step, done=done + step.done, total=total))
