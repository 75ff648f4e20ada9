"""A diagnosis as a table on the terminal, and each of its checks as a picture."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rdc_bench.reporting import drawing
from rdc_bench.results.diagnosis import Check, Diagnosis, Plot, Verdict

COLOURS: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "red"}
#: Colours and markers of a picture's lines, in their order. Readable without colours too.
STYLES = (("#2a7fb8", "o"), ("#c1432e", "s"), ("0.45", "^"), ("#5a9e4b", "D"), ("#8a5fa8", "v"))
DASHES = ("-", "--", ":", "-.")
#: Points up to which each is marked and has a bar of its own.
FEW = 12
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
        console.print(
            "Its robust accuracy is not to be trusted before the attacks are mended: see docs/explanation/diagnose.md."
        )


def _figures(check: Check) -> str:
    return "\n".join(f"{name}: {value:.3g}" for name, value in check.figures.items())


def pictures(diagnosis: Diagnosis) -> dict[str, bytes]:
    """One PNG for each check that has something to draw, by file name."""
    return {f"{check.name}.png": _png(diagnosis, check) for check in diagnosis.checks if check.plot.lines}


def _png(diagnosis: Diagnosis, check: Check) -> bytes:
    compared = not check.plot.x_label  # attacks side by side, each a point of its own
    height = 1.5 + 0.45 * len(check.plot.lines) if compared else 4.0
    figure = Figure(figsize=(6.4, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    (_side_by_side if compared else _curves)(axes, check.plot)
    axes.grid(color="0.92", zorder=0, axis="x" if compared else "both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(drawing.plain(f"{diagnosis.model}: {check.title}"), x=0.02, ha="left", fontsize="medium")
    figure.text(0.98, 0.985, check.verdict, ha="right", va="top", color=INK[check.verdict], fontweight="bold")
    return drawing.png(figure)


def _side_by_side(axes: Axes, plot: Plot) -> None:
    """One row for each attack, with its interval; the last, which the others are compared with, in another colour."""
    for row, line in enumerate(plot.lines):
        colour, marker = STYLES[1 if row == len(plot.lines) - 1 else 0]
        if line.low and line.high:
            axes.hlines(row, line.low[0], line.high[0], colors=colour, linewidth=2, zorder=2)
        axes.plot(line.y[0], row, color=colour, marker=marker, markersize=7, zorder=3, clip_on=False)
    axes.set_yticks(range(len(plot.lines)), [drawing.plain(line.label) for line in plot.lines], fontsize="small")
    axes.set_ylim(len(plot.lines) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{plot.y_label}, with 95 % intervals")


def _curves(axes: Axes, plot: Plot) -> None:
    """Lines with their intervals as bars, or as a band where there are many points."""
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
        drawn = [y for line in plot.lines for y in line.y] + ([] if plot.limit is None else [plot.limit])
        axes.set_ylim(min(drawn) / 10, max(1.0, 10 * max(drawn)))
    few = max(len(line.x) for line in plot.lines) <= FEW
    for number, line in enumerate(plot.lines):
        colour, marker = STYLES[number % len(STYLES)]
        axes.plot(
            line.x,
            line.y,
            color=colour,
            marker=marker if few else None,
            markersize=6,
            linewidth=2,
            linestyle=DASHES[number % len(DASHES)],
            label=drawing.plain(line.label),
            zorder=3,
            clip_on=False,
        )
        if line.low and line.high and few:
            axes.vlines(line.x, line.low, line.high, colors=colour, linewidth=1.6, zorder=2)
        elif line.low and line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if plot.y_label.endswith("in %"):
        axes.set_ylim(-3, 103)
    if plot.x_label.endswith("in %"):
        axes.set_xlim(0, 100)
    if plot.x_label == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if plot.limit is not None:
        axes.axhline(plot.limit, color="0.35", linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="limit")
    axes.legend(frameon=False, fontsize="small")
    axes.set_xlabel(drawing.plain(plot.x_label))
    axes.set_ylabel(drawing.plain(plot.y_label))
