"""Models across threat models: what holds for the same images under each threat, and under several at once.

Runs on the same images, with the same effort and seed, stand side by side: one column per threat and size, one row per model.
Over the threats of a set there are three figures. The *mean* weighs all threats alike. The *lowest* is that of the threat that
hurts most. The *union* counts an image only as far as it holds under every threat, each in its worst case, as an attacker would
choose it; it is found image by image from the records, not from the rates (Dai et al. 2023, "MultiRobustBench", arXiv
2302.10980).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from rdc_bench.cards import ThreatCard, card_names, find_threat_card
from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError
from rdc_bench.results.schema import CLEAN, AttackEntry, Manifest, ModelEntry
from rdc_bench.results.statistics import Rate
from rdc_bench.results.store import RunFolder
from rdc_bench.results.summary import SENSES, ModelSummary, summarize
from rdc_bench.threats import SETS


@dataclass(frozen=True)
class StoredRun:
    """A complete run from disk."""

    folder: RunFolder
    manifest: Manifest
    records: pd.DataFrame

    @functools.cached_property
    def models(self) -> list[ModelSummary]:
        """What it amounts to, one summary per model."""
        return summarize(self.manifest, self.records)

    @classmethod
    def read(cls, folder: RunFolder) -> StoredRun:
        """Read it; raises ``UserError`` where it is damaged."""
        return cls(folder, folder.manifest(), folder.records())


class Column(NamedTuple):
    """A threat at one size. ``sets``: the sets of threats that it counts in."""

    threat: str
    eps: str
    sets: tuple[str, ...]

    @property
    def label(self) -> str:
        """``linf 8/255``."""
        return f"{self.threat} {self.eps}"


class OverSet(NamedTuple):
    """A model under the threats of a set. ``mean`` and ``lowest`` (with its threat) are by sense, rates in [0, 1]."""

    mean: dict[str, float]
    lowest: dict[str, tuple[float, str]]
    union: ModelSummary

    def as_json(self) -> dict[str, Any]:
        """The object that ``run --json`` prints for a model of a set."""
        union = self.union.as_json()
        return {
            "model": union["model"],
            "title": union["title"],
            "role": union["role"],
            "status": union["status"],
            "clean": union["clean"],
            "mean": self.mean,
            "lowest": {sense: {"value": value, "threat": threat} for sense, (value, threat) in self.lowest.items()},
            "union": union["robust"],
            "upper_bound": union["upper_bound"],
            "doubts": union["doubts"],
        }


class Row(NamedTuple):
    """One model: what it does under each threat, by label, and over each set whose threats it was all run under."""

    model: str
    clean: Rate
    cells: dict[str, ModelSummary]
    over: dict[str, OverSet]


@dataclass(frozen=True)
class SideBySide:
    """Runs on the same images, with the same effort and seed. ``manifest``: that of the first."""

    manifest: Manifest
    columns: list[Column]
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        """The object that ``report --json`` prints for the table."""
        m = self.manifest
        return {
            "dataset": m.dataset,
            "n": m.n,
            "profile": m.profile,
            "seed": m.seed,
            "threats": [{"threat": c.threat, "eps": c.eps, "sets": list(c.sets)} for c in self.columns],
            "models": [
                {
                    "model": row.model,
                    "clean": row.clean.as_json(),
                    "threats": {label: cell.as_json()["robust"] for label, cell in row.cells.items()},
                    "sets": {name: over.as_json() for name, over in row.over.items()},
                }
                for row in self.rows
            ],
        }


def side_by_side(runs: Iterable[StoredRun]) -> list[SideBySide]:
    """One table for each group of runs on the same images with the same effort and seed."""
    groups: dict[tuple[Any, ...], list[StoredRun]] = {}
    for run in runs:
        m = run.manifest
        groups.setdefault((m.dataset, m.split, m.data_sha256, m.n, m.profile, m.repeats, m.seed), []).append(run)
    find_card = functools.cache(_card)  # most runs are under the same few threats
    return [_table(group, find_card) for group in groups.values()]


def _table(runs: Sequence[StoredRun], find_card: Callable[[str], ThreatCard | None]) -> SideBySide:
    by_column: dict[Column, list[StoredRun]] = {}
    for run in runs:
        by_column.setdefault(_column(run.manifest, find_card), []).append(run)
    columns = sorted(by_column, key=lambda c: (c.sets != ("all",), c.label))  # what models are trained against comes first
    by_model: dict[tuple[str, str], dict[Column, list[StoredRun]]] = {}
    for column in columns:
        for run in by_column[column]:
            for entry in run.manifest.models:
                by_model.setdefault(_identity(entry), {}).setdefault(column, []).append(run)
    names = [name for name, _ in by_model]
    rows = [
        _row(name if names.count(name) == 1 else f"{name} ({digest})", name, found, columns)
        for (name, digest), found in by_model.items()
    ]
    return SideBySide(runs[0].manifest, columns, sorted(rows, key=_from_the_best))


def _column(m: Manifest, find_card: Callable[[str], ThreatCard | None]) -> Column:
    """A threat counts in the sets at the size that its card gives it, which is what a run of the set takes."""
    card = find_card(m.threat)
    usual = card is not None and parse_eps(card.default_eps).value == parse_eps(m.eps).value
    return Column(m.threat, m.eps, tuple(s for s in SETS if usual and card and (SETS[s].seen or not card.seen)))


def _card(threat: str) -> ThreatCard | None:
    if threat not in card_names("threat_models"):
        return None
    try:
        return find_threat_card(threat)
    except UserError:  # a card that became faulty since; `rdc-bench list threats` says so
        return None


def _identity(entry: ModelEntry) -> tuple[str, str]:
    """A model's name and a digest of what decides its figures, which tells models of one name apart."""
    facts = json.dumps([entry.settings, sorted(entry.weights.items())], sort_keys=True)
    return entry.name, hashlib.sha256(facts.encode()).hexdigest()[:8]


def _row(label: str, name: str, found: dict[Column, list[StoredRun]], columns: list[Column]) -> Row:
    cells = {column.label: together(name, runs) for column, runs in found.items()}
    over = {}
    for set_name in SETS:
        inside = [column for column in columns if set_name in column.sets]
        if inside and all(column in found for column in inside):
            of_each = {column.threat: cells[column.label] for column in inside}
            over[set_name] = _over(of_each, together(name, [run for column in inside for run in found[column]]))
    return Row(label, next(iter(cells.values())).clean, cells, over)


def _over(of_each: dict[str, ModelSummary], union: ModelSummary) -> OverSet:
    values = {sense: {threat: getattr(m, sense).value for threat, m in of_each.items()} for sense in SENSES}
    return OverSet(
        {sense: sum(by_threat.values()) / len(by_threat) for sense, by_threat in values.items()},
        {sense: min((value, threat) for threat, value in by_threat.items()) for sense, by_threat in values.items()},
        union,
    )


def together(name: str, runs: Sequence[StoredRun]) -> ModelSummary:
    """One model under everything that was tried against it in several runs on the same images, worst case per image.

    What casts doubt on any of the runs casts doubt on them together.
    """
    own = [next(summary for summary in run.models if summary.model == name) for run in runs]
    if len(own) == 1:
        return own[0]._replace(attacks={f"0/{label}": found for label, found in own[0].attacks.items()})
    parts: list[pd.DataFrame] = []
    attacks: list[AttackEntry] = []
    for number, run in enumerate(runs):
        rows = run.records[run.records["model"] == name]
        attacked = rows["attack"] != CLEAN
        kept = rows[attacked] if parts else rows  # clean predictions are those of the first run
        parts.append(kept.assign(attack=kept["attack"].where(kept["attack"] == CLEAN, f"{number}/" + kept["attack"])))
        attacks += [a.model_copy(update={"label": f"{number}/{a.label}"}) for a in run.manifest.attacks]
    first = runs[0].manifest
    entry = next(entry for entry in first.models if entry.name == name)
    (summary,) = summarize(first.model_copy(update={"attacks": attacks, "models": [entry]}), pd.concat(parts))
    return summary._replace(doubts=tuple(dict.fromkeys(doubt for each in own for doubt in each.doubts)))


def _from_the_best(row: Row) -> tuple[Any, ...]:
    """Sorts by the union over as many threats as there are, else by the mean of the cells; the most robust first."""
    if row.over:
        union = list(row.over.values())[-1].union
        return (0, -union.worst.value, -union.avg.value, row.model)
    return (1, -sum(cell.worst.value for cell in row.cells.values()) / len(row.cells), 0.0, row.model)
