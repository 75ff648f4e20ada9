"""Each run as a picture: clean and robust accuracy of every model, with intervals."""

from __future__ import annotations

from matplotlib.figure import Figure

from rdc_bench.reporting import drawing
from rdc_bench.reporting.comparison import RunTable
from rdc_bench.reporting.render import heading
from rdc_bench.results.statistics import Rate

#: What is drawn, from the top down within a model's row: label, colour and marker. Readable without colours too.
SERIES = {
    "clean": ("clean", "0.55", "|"),
    "avg": ("robust, average", "#2a7fb8", "o"),
    "worst": ("robust, worst case", "#c1432e", "s"),
}


def png(table: RunTable) -> bytes:
    """One run as a PNG: a row per model, the most robust at the top, Wilson intervals as lines."""
    figure = Figure(figsize=(8, 1.4 + 0.55 * len(table.models)), dpi=150, layout="constrained")
    axes = figure.subplots()
    for offset, (attribute, (label, colour, marker)) in zip((-0.2, 0.0, 0.2), SERIES.items(), strict=True):
        for row, model in enumerate(table.models):
            rate: Rate = getattr(model, attribute)
            face = "white" if model.upper_bound and attribute != "clean" else colour
            axes.hlines(row + offset, 100 * rate.low, 100 * rate.high, colors=colour, linewidth=2)
            axes.plot(100 * rate.value, row + offset, marker, color=colour, markerfacecolor=face, markersize=7)
        axes.plot([], [], marker, color=colour, markersize=7, label=label)  # for the legend
    axes.set_yticks(range(len(table.models)), [drawing.plain(model.model) for model in table.models])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    hollow = "; hollow: an upper bound" if any(model.upper_bound for model in table.models) else ""
    axes.set_xlabel(f"accuracy in %, with 95 % intervals{hollow}")
    drawing.title(axes, heading(table), figure)
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return drawing.png(figure)
