"""The same tables as text: for the terminal, Markdown and CSV."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from rdc_bench.reporting.bounds import bounded, doubt_columns, footnotes
from rdc_bench.reporting.comparison import Comparisons, RunTable
from rdc_bench.reporting.fit import print_line, print_table
from rdc_bench.reporting.reported import Elsewhere
from rdc_bench.reporting.side_by_side import ACROSS, footnotes_across, heading_across, threat_rows
from rdc_bench.results.across import SideBySide
from rdc_bench.results.statistics import Rate
from rdc_bench.results.summary import SENSES, AttackSummary, ModelSummary

RATES = (
    "Accuracies in % with Wilson 95 % intervals. avg: mean over the repeats; majority: right by the vote of the repeats; "
    "worst: right in every repeat of every attack. Of a–b, a counts undecided images as broken and b as robust."
)


def heading(table: RunTable) -> str:
    """What was run, in one line."""
    m = table.manifest
    return f"{m.dataset} · {m.threat} · eps {m.eps} · first {m.n} {m.split} images · {m.repeats} repeats · profile {m.profile}"


def main_rows(table: RunTable) -> pd.DataFrame:
    """One row per model, from the most to the least robust in the worst case."""
    rows = []
    for m in table.models:
        row = {"model": _marked(table, m), "clean": m.clean.percent}
        row |= {f"robust {sense}": bounded(getattr(m, sense).percent, m) for sense in _senses(table)}
        if any(other.undecided for other in table.models):
            row["undecided"] = str(m.undecided)
        row |= {
            "vs best baseline": _against(table, m),
            "NFE": f"{m.nfe_per_image:.0f}",
            "s/image": f"{m.seconds_per_image:.3g}",
        }
        rows.append(row)
    return pd.DataFrame(rows)


def attack_rows(table: RunTable) -> pd.DataFrame:
    """Per model and attack, ``avg / majority / worst`` in %, with the attacks that did not run through marked.

    Of a witness, what it broke of the images that it was shown.
    """
    rows = []
    for m in table.models:
        row = {"model": _marked(table, m)}
        for name, a in m.attacks.items():
            mark = "" if a.status == "ok" else f" ({a.failed} {a.status})"
            if a.witnessed:
                row[name] = f"broke {a.witnessed.broke} of {a.witnessed.tried}{mark}"
            else:
                row[name] = bounded(" / ".join(getattr(a, sense).span for sense in _senses(table)) + mark, m)
        rows.append(row)
    return pd.DataFrame(rows).fillna("–")  # a witness was not shown images of every model


#: Beside the name of a model whose diagnosis failed.
MASKED = "⚠ masked?"
ELSEWHERE = "Reported elsewhere, not measured here (other images and attacks)"


def reported_rows(elsewhere: list[Elsewhere]) -> pd.DataFrame:
    """One row per figure that others published, all of them in columns marked as reported."""
    rows = []
    for row in elsewhere:
        figure = row.figure
        draws = f" × {figure.draws} draws" if figure.draws > 1 else ""
        rows.append(
            {
                "model": row.model,
                "reported clean": row.clean.percent if row.clean else "",
                "reported robust": f"{figure.percent} (worst draw)" if figure.metric == "worst" else figure.percent,
                "attack": figure.attack or "",
                "images": f"{figure.n}{draws}" if figure.n else "",
                "source": figure.source,
                "note": figure.note or "",
            }
        )
    return pd.DataFrame(rows)


#: Columns of the main table that are needed most.
NEEDED = ("robust worst", "clean", "undecided", "robust avg", "vs best baseline", "robust majority")


def terminal(comparisons: Comparisons, console: Console) -> None:
    """Print all tables."""
    told: list[list[Elsewhere]] = []
    for table in comparisons.runs:
        print_table(console, main_rows(table), heading(table), NEEDED)
        for line in footnotes(table.models):
            print_line(console, line, "yellow")
        if len(table.manifest.attacks) > 1:
            console.print()
            print_table(console, attack_rows(table), f"by attack: {' / '.join(_senses(table))}")
        if table.elsewhere and table.elsewhere not in told:  # once for all runs under the same threat
            told.append(table.elsewhere)
            lowest = {row.model: row for row in table.elsewhere}  # they are sorted, so the last of a model is its lowest
            shown = reported_rows([row for row in table.elsewhere if lowest[row.model] is row]).drop(columns="note")
            console.print()
            print_table(console, shown, f"{ELSEWHERE}; the lowest for each model", ("reported robust",))
        console.print()
        print_line(console, table.manifest.note, "dim")
        for line in _warnings(table):
            print_line(console, line, "yellow")
        console.print()
    for across in comparisons.across:
        _print_across(across, console)
    print_line(console, RATES, "dim")
    if comparisons.unfinished:
        print_line(console, f"not finished, left out: {', '.join(comparisons.unfinished)}", "yellow")


def terminal_set(across: SideBySide, tables: list[RunTable], console: Console) -> None:
    """Print the runs of a set as one table, with what must be said about any of them."""
    print_line(console, tables[0].manifest.note, "dim")
    for table in tables:
        for line in _warnings(table):
            print_line(console, f"{table.manifest.threat}: {line}", "yellow")
    _print_across(across, console)


def _print_across(across: SideBySide, console: Console) -> None:
    print_table(console, threat_rows(across), heading_across(across))
    for line in footnotes_across(across):
        print_line(console, line, "yellow")
    print_line(console, ACROSS, "dim")
    console.print()


def markdown(comparisons: Comparisons) -> str:
    """All tables as a Markdown page."""
    parts = ["# Robustness report", "", RATES, ""]
    for table in comparisons.runs:
        parts += [f"## {heading(table)}", "", _markdown(main_rows(table)), "", *_paragraphs(footnotes(table.models))]
        if len(table.manifest.attacks) > 1:
            parts += [f"By attack, {' / '.join(_senses(table))} in %:", "", _markdown(attack_rows(table)), ""]
        if table.elsewhere:
            parts += [f"{ELSEWHERE}, in %:", "", _markdown(reported_rows(table.elsewhere)), ""]
        parts += [f"{table.manifest.note.capitalize()}. Run `{table.path.name}`.", *_warnings(table), ""]
    for across in comparisons.across:
        parts += [f"## {heading_across(across)}", "", _markdown(threat_rows(across)), ""]
        parts += [*_paragraphs(footnotes_across(across)), ACROSS, ""]
    if comparisons.unfinished:
        parts += [f"Not finished, left out: {', '.join(comparisons.unfinished)}.", ""]
    return "\n".join(parts)


def csv(comparisons: Comparisons) -> str:
    """One line per run, model and attack (``union`` for all of them), rates as fractions."""
    rows = []
    for table in comparisons.runs:
        m = table.manifest
        for s in table.models:
            shared = {
                "run": table.path.name,
                "dataset": m.dataset,
                "threat": m.threat,
                "eps": m.eps,
                "n": m.n,
                "profile": m.profile,
            }
            shared |= {"model": s.model, "role": s.role, "source": "measured"}
            results = {"clean": (dict.fromkeys(SENSES, s.clean), "ok")}
            of_each: dict[str, ModelSummary | AttackSummary] = {"union": s, **s.attacks}
            results |= {name: ({sense: getattr(of, sense) for sense in SENSES}, of.status) for name, of in of_each.items()}
            for name, (by_sense, status) in results.items():
                rates = {f"{sense}{end}": bound for sense, rate in by_sense.items() for end, bound in _bounds(rate).items()}
                line = {**shared, "attack": name, "status": status, **rates, "undecided": s.undecided}
                rows.append({**line, **doubt_columns(s)})
    return pd.DataFrame(rows).to_csv(index=False)


def _bounds(rate: Rate) -> dict[str, float]:
    """A rate's columns by the end of their names; the upper value is the value itself where no image is undecided."""
    return {"": rate.value, "_low": rate.low, "_high": rate.high, "_upper": rate.value if rate.upper is None else rate.upper}


def _senses(table: RunTable) -> tuple[str, ...]:
    """What is shown of the repeats: a vote only where some model has more than one."""
    voting = any(entry.repeats > 1 for entry in table.manifest.models)
    return SENSES if voting else ("avg", "worst")


def _against(table: RunTable, model: ModelSummary) -> str:
    a = table.against.get(model.model)
    if a is None:
        return "best baseline" if model.role == "baseline" and table.against else "–"
    return f"{100 * a.test.difference:+.1f} (p={a.holm:.2g})"


def _marked(table: RunTable, model: ModelSummary) -> str:
    """The model's name, with a mark where a diagnosis found its gradients masked."""
    return f"{model.model} {MASKED}" if model.model in table.masked else model.model


def _warnings(table: RunTable) -> list[str]:
    lines = [
        f"{MASKED} {model}: the diagnosis under {found.threat} at eps {found.eps} failed ({', '.join(found.checks)}), so its "
        "robust accuracy may be that of the attack's failure; see docs/explanation/diagnose.md"
        for model, failures in table.masked.items()
        for found in failures
    ]
    failures = table.manifest.failures
    if failures:
        first = failures[0]
        lines.append(
            f"{len(failures)} attacks did not give a verdict and count as undecided, never as robust; "
            f"first: {first.attack} on {first.model}, image {first.index}: {first.reason}"
        )
    partly = [f"{name} on {m.model} ({a.partly})" for m in table.models for name, a in m.attacks.items() if a.partly]
    if partly:
        lines.append(f"some gradients were zero or not finite, on images left standing by {', '.join(partly)}")
    approximated = [f"{m.name} ({m.gradient})" for m in table.manifest.models if m.gradient not in ("exact", "none")]
    if approximated:
        lines.append(f"no attack took the exact gradient of {', '.join(approximated)}, so these figures are upper bounds")
    return lines


def _paragraphs(lines: list[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


def _markdown(frame: pd.DataFrame) -> str:
    """Names come from cards and plugins: a bar in one must not end its cell."""
    safe = frame.map(lambda value: str(value).replace("|", "\\|").replace("\n", " "))
    return safe.to_markdown(index=False, disable_numparse=True)
