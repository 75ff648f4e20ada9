"""A diagnosis as a table on the terminal, and each of its checks as a picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rdc_bench.results.diagnosis import Check, Diagnosis, Verdict

COLOURS: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "red"}
#: Colours and markers of a picture's lines, in their order. Readable without colours too.
STYLES = (("#2a7fb8", "o"), ("#c1432e", "s"), ("0.45", "^"), ("#5a9e4b", "D"), ("#8a5fa8", "v"))
INK: dict[Verdict, str] = {"pass": "#3b7d2e", "warn": "#b07a00", "fail": "#b3261e"}


def terminal(diagnosis: Diagnosis, console: Console) -> None:
    """Print the verdict of every check with its figures and what they mean."""
    title = (
        f"{diagnosis.model} · {diagnosis.threat} · eps {diagnosis.eps} · "
        f"{diagnosis.correct} of the first {diagnosis.n} test images, those classified correctly"
    )
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("check", no_wrap=True)
    table.add_column("verdict")
    table.add_column("figures", overflow="fold")
    table.add_column("meaning", overflow="fold")
    table.add_column("source", style="dim")
    for check in diagnosis.checks:
        verdict = f"[{COLOURS[check.verdict]}]{check.verdict}[/]"
        table.add_row(check.name, verdict, escape(_figures(check)), escape(check.says), escape(check.source), end_section=True)
    console.print(table)
    failed = f" ({', '.join(diagnosis.failed)})" if diagnosis.failed else ""
    console.print(f"[bold]{escape(diagnosis.model)}: [{COLOURS[diagnosis.verdict]}]{diagnosis.verdict}[/]{failed}[/bold]")
    if diagnosis.failed:
        console.print("Its robust accuracy is not to be trusted before the attacks are mended: see docs/diagnose.md.")


def _figures(check: Check) -> str:
    return "\n".join(f"{name}: {value:.3g}" for name, value in check.figures.items())


def pictures(diagnosis: Diagnosis) -> dict[str, bytes]:
    """One PNG for each check that has something to draw, by file name."""
    return {f"{check.name}.png": _png(diagnosis, check) for check in diagnosis.checks if check.plot.lines}


def _png(diagnosis: Diagnosis, check: Check) -> bytes:
    plot = check.plot
    compared = not plot.x_label  # attacks side by side, each a point of its own
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(plot.lines):
        colour, marker = STYLES[number % len(STYLES)]
        few = len(line.x) <= 12
        axes.plot(
            line.x,
            line.y,
            color=colour,
            marker=marker if few else None,
            markersize=6,
            linewidth=2,
            linestyle=("-", "--", ":", "-.")[number % 4],
            label=line.label,
            zorder=3,
            clip_on=False,
        )
        if line.low and line.high and few:
            axes.vlines(line.x, line.low, line.high, colors=colour, linewidth=1.6, zorder=2)
        elif line.low and line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if plot.limit is not None:
        axes.axhline(plot.limit, color="0.2", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    if compared:
        axes.set_xticks([line.x[0] for line in plot.lines], [_plain(line.label) for line in plot.lines], fontsize="small")
        axes.set_xlim(-0.5, len(plot.lines) - 0.5)
    elif len(plot.lines) > 1:
        axes.legend(frameon=False, fontsize="small")
    if plot.y_label.endswith("in %"):
        axes.set_ylim(-3, 103)
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.set_xlabel(_plain(plot.x_label))
    axes.set_ylabel(_plain(plot.y_label))
    axes.grid(color="0.92", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(_plain(f"{diagnosis.model}: {check.name}"), loc="left", fontsize="medium")
    axes.set_title(check.verdict, loc="right", fontsize="medium", color=INK[check.verdict], fontweight="bold")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plain(text: str) -> str:
    """Names come from cards: a dollar sign must not start a formula."""
    return text.replace("$", r"\$")
