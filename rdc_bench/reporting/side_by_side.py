"""Threat models side by side: one row per threat, one column per model, and below them the figures over sets of threats."""

from __future__ import annotations

import pandas as pd

from rdc_bench.reporting.bounds import bounded, doubt_columns, footnotes
from rdc_bench.results.across import Column, Row, SideBySide
from rdc_bench.threats import SETS

ACROSS = (
    "Robust accuracies in %, avg / worst where they differ. Over those threats of a set that were run at their usual sizes "
    "(their number in brackets): the mean, the lowest of any threat, and the union, in which an image counts as far as it "
    "holds under every threat, with Wilson's 95 % interval."
)

#: What is shown of a model over a set.
FIGURES = ("mean", "lowest", "union")


def heading_across(table: SideBySide) -> str:
    """What stands side by side, in one line."""
    m = table.manifest
    seed = f" · seed {m.seed}" if m.seed else ""
    return f"{m.dataset} · {len(table.columns)} threats · first {m.n} {m.split} images · profile {m.profile}{seed}"


def threat_rows(table: SideBySide) -> pd.DataFrame:
    """The table as text."""
    lines = [{"threat": "clean", **{row.model: row.clean.span for row in table.rows}}]
    lines += [{"threat": c.label, **{row.model: _under(row, c) for row in table.rows}} for c in table.columns]
    shown = 1
    for name in SETS:  # each holds those before it
        inside = sum(name in column.sets for column in table.columns)
        if inside > shown:
            over = {row.model: _over(row, name) for row in table.rows}
            title = f"{name} ({inside})"
            lines += [{"threat": f"{title}: {figure}", **{m: texts[figure] for m, texts in over.items()}} for figure in FIGURES]
            shown = inside
    return pd.DataFrame(lines)


def footnotes_across(table: SideBySide) -> list[str]:
    """What the mark of upper bounds means, for all models."""
    return footnotes(cell for row in table.rows for cell in row.cells.values())


def threats_csv(tables: list[SideBySide]) -> str:
    """One line per table, model and threat, and per set its union (threat ``unseen`` or ``all``), rates as fractions."""
    lines = []
    for table in tables:
        m = table.manifest
        shared = {"dataset": m.dataset, "n": m.n, "profile": m.profile, "seed": m.seed}
        for row in table.rows:
            found = {(c.threat, c.eps): row.cells[c.label] for c in table.columns if c.label in row.cells}
            found |= {(name, ""): over.union for name, over in row.over.items()}
            for (threat, eps), summary in found.items():
                line = {**shared, "model": row.model, "threat": threat, "eps": eps}
                for sense, rate in (("avg", summary.avg), ("worst", summary.worst)):
                    line |= {sense: rate.value, f"{sense}_low": rate.low, f"{sense}_high": rate.high}
                lines.append({**line, "undecided": summary.undecided, **doubt_columns(summary)})
    return pd.DataFrame(lines).to_csv(index=False)


def _under(row: Row, column: Column) -> str:
    summary = row.cells.get(column.label)
    if summary is None:
        return "–"
    undecided = f" ({summary.undecided} undecided)" if summary.undecided else ""
    return bounded(_both(row, summary.avg.span, summary.worst.span) + undecided, summary)


def _over(row: Row, name: str) -> dict[str, str]:
    """The figures of a model over a set, as text."""
    if name not in row.over:
        return dict.fromkeys(FIGURES, "–")
    over = row.over[name]
    texts = {
        "mean": _both(row, *(f"{100 * over.mean[sense]:.1f}" for sense in ("avg", "worst"))),
        "lowest": _both(row, *(f"{100 * over.lowest[sense][0]:.1f}" for sense in ("avg", "worst"))),
        "union": _both(row, over.union.avg.span, over.union.worst.percent),
    }
    return {figure: bounded(text, over.union) for figure, text in texts.items()}


def _both(row: Row, avg: str, worst: str) -> str:
    """``avg / worst``, or once what is the same for every threat, as for a model that is not randomised."""
    randomised = any(cell.avg.value != cell.worst.value for cell in row.cells.values())
    return f"{avg} / {worst}" if randomised else worst
