"""A recipe's table as a picture: what each step leaves of each model."""

from __future__ import annotations

from matplotlib.figure import Figure

from rdc_bench.reporting import drawing
from rdc_bench.reproduction.table import ALL, Row
from rdc_bench.results.summary import ModelSummary

AVERAGE, WORST, CLEAN = "#2a7fb8", "#c1432e", "0.75"


def png(rows: list[Row], heading: str) -> bytes:
    """One block per model, one line per step: average and worst case with Wilson intervals, clean accuracy as a bar behind."""
    lines: list[tuple[str, ModelSummary, bool]] = []
    for row in rows:
        lines += [(label, summary, False) for label, summary in row.by_step.items()]
        lines += [(ALL, row.together, True)] if len(row.by_step) > 1 else []
    figure = Figure(figsize=(9, 1.2 + 0.2 * len(lines) + 0.35 * len(rows)), dpi=150, layout="constrained")
    axes = figure.subplots()
    ticks, names, y = [], [], 0.0
    for row in rows:
        y += 1.0
        axes.text(0.5, y, drawing.plain(row.model), va="center", fontsize="small", fontweight="bold")
        steps = {**row.by_step, **({ALL: row.together} if len(row.by_step) > 1 else {})}
        for label, summary in steps.items():
            y += 1.0
            ticks.append(y)
            names.append(drawing.plain(label))
            axes.barh(y, 100 * summary.clean.value, height=0.9, color=CLEAN, alpha=0.35, label="clean")
            for offset, rate, colour, marker, what in (
                (-0.2, summary.avg, AVERAGE, "o", "robust, average over draws"),
                (0.2, summary.worst, WORST, "s", "robust, worst draw"),
            ):
                axes.hlines(y + offset, 100 * rate.low, 100 * rate.high, colors=colour, linewidth=1.5)
                axes.plot(100 * rate.value, y + offset, marker=marker, color=colour, linestyle="none", markersize=4, label=what)
        y += 0.5
    axes.set_yticks(ticks, names, fontsize="small")
    axes.set_ylim(y + 0.5, 0)
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy in %, with 95 % intervals")
    drawing.title(axes, heading, figure)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return drawing.png(figure)
