"""Runs side by side: one row per model, tests against the best baseline on the same images, and what others report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statsmodels.stats.multitest import multipletests

from rdc_bench.reporting.reported import Elsewhere, readable_cards, reported_elsewhere
from rdc_bench.results.across import SideBySide, StoredRun, side_by_side
from rdc_bench.results.diagnosis import Masked, failed_diagnoses, masked
from rdc_bench.results.schema import Manifest
from rdc_bench.results.statistics import Comparison, mcnemar
from rdc_bench.results.store import find_runs
from rdc_bench.results.summary import ModelSummary


@dataclass(frozen=True)
class Against:
    """A defence against the best baseline of its run. ``holm``: the p-value corrected for all comparisons of the run."""

    model: str
    baseline: str
    test: Comparison
    holm: float


@dataclass(frozen=True)
class RunTable:
    """One run: models from the most to the least robust, and the tests. ``against`` is keyed by model.

    ``elsewhere``: what others report on the same dataset and threat. ``masked``: models whose diagnosis failed.
    """

    path: Path
    manifest: Manifest
    models: list[ModelSummary]
    against: dict[str, Against]
    elsewhere: list[Elsewhere]
    masked: dict[str, list[Masked]]


@dataclass(frozen=True)
class Comparisons:
    """All complete runs of a results folder, and the names of those that are not complete.

    ``across``: runs under different threats on the same images, side by side.
    """

    runs: list[RunTable]
    unfinished: list[str]
    across: list[SideBySide]

    def as_json(self) -> dict[str, Any]:
        """The document that ``rdc-bench report --json`` prints."""
        rows, comparisons = [], []
        for table in self.runs:
            m = table.manifest
            where = {"run": str(table.path), "threat": m.threat, "eps": m.eps, "dataset": m.dataset}
            measured = {**where, "n": m.n, "profile": m.profile, "source": "measured"}
            for summary in table.models:
                found = [failed._asdict() for failed in table.masked.get(summary.model, [])]
                rows.append({**measured, **summary.as_json(), "masked": found})
            rows += [{**where, "profile": None, **reported.as_row(), "masked": []} for reported in table.elsewhere]
            for a in table.against.values():
                tested = {**a.test._asdict(), "p_value_holm": a.holm}
                comparisons.append({**where, "model": a.model, "baseline": a.baseline, **tested})
        across = [table.as_json() for table in self.across]
        return {"rows": rows, "comparisons": comparisons, "across": across, "unfinished": self.unfinished}


def compare(results: Path) -> Comparisons:
    """Read every run under ``results``. Raises ``UserError`` when there is none, or one is damaged."""
    tables, unfinished, stored = [], [], []
    folders = find_runs(results)
    cards, failed = readable_cards(), failed_diagnoses(folders[0].path.parent)  # once for all runs, which lie side by side
    for folder in folders:
        manifest = folder.manifest()
        if not manifest.files:
            unfinished.append(folder.path.name)
            continue
        run = StoredRun.read(folder)
        stored.append(run)
        models = sorted(run.models, key=lambda m: (-m.worst.value, -m.avg.value, m.model))
        against, elsewhere = _against_best_baseline(models), reported_elsewhere(manifest, cards)
        tables.append(RunTable(folder.path, manifest, models, against, elsewhere, masked(failed, manifest.models)))
    return Comparisons(tables, unfinished, [table for table in side_by_side(stored) if len(table.columns) > 1])


def _against_best_baseline(models: list[ModelSummary]) -> dict[str, Against]:
    """McNemar's test on the images robust in the worst case; undecided images count as broken for both."""
    baselines = [m for m in models if m.role == "baseline"]
    if not baselines:
        return {}
    best = baselines[0]
    tests = {m.model: mcnemar(m.robust_images, best.robust_images) for m in models if m is not best}
    if not tests:
        return {}
    holm = multipletests([t.p_value for t in tests.values()], method="holm")[1]
    return {name: Against(name, best.model, test, float(p)) for (name, test), p in zip(tests.items(), holm, strict=True)}
