"""Security curves of the runs that hold a minimum-norm attack, as CSV and as a figure for each."""

from __future__ import annotations

import csv
import io

from rdc_bench.attacks import ATTACKS
from rdc_bench.errors import UserError
from rdc_bench.reporting.comparison import Comparisons, RunTable
from rdc_bench.reporting.render import heading
from rdc_bench.results.curves import SecurityCurve, security_curves
from rdc_bench.results.store import RunFolder


def curve_tables(comparisons: Comparisons) -> dict[str, bytes]:
    """``security-curve-RUN.csv`` per run: robust accuracy and its interval at every ε where a model's changes."""
    return {f"security-curve-{table.path.name}.csv": _csv(_curves(table)) for table in _with_curves(comparisons)}


def curve_figures(comparisons: Comparisons) -> dict[str, bytes]:
    """``security-curve-RUN.png`` per run: robust accuracy in the worst case against ε, a line per model with its interval."""
    return {f"security-curve-{table.path.name}.png": _png(table, _curves(table)) for table in _with_curves(comparisons)}


def _with_curves(comparisons: Comparisons) -> list[RunTable]:
    return [table for table in comparisons.runs if any(_seeks_the_nearest(a.name) for a in table.manifest.attacks)]


def _seeks_the_nearest(attack: str) -> bool:
    try:
        return ATTACKS.get(attack).minimum_norm
    except UserError:  # of a plugin or a library that is not here, so that nothing is known about it
        return False


def _curves(table: RunTable) -> list[SecurityCurve]:
    return security_curves(table.manifest, RunFolder(table.path).records())


def _csv(curves: list[SecurityCurve]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "eps", "avg", "avg_low", "avg_high", "worst", "worst_low", "worst_high"])
    for curve in curves:
        for eps, avg, worst in zip(curve.eps, curve.avg, curve.worst, strict=True):
            writer.writerow([curve.model, f"{eps:.6g}", *(f"{rate:.6g}" for rate in (*avg, *worst))])
    return out.getvalue().encode()


def _png(table: RunTable, curves: list[SecurityCurve]) -> bytes:
    from matplotlib.figure import Figure  # takes long to import

    from rdc_bench.reporting import drawing

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    doubted = {model.model for model in table.models if model.upper_bound}
    for curve in curves:
        is_bound = curve.model in doubted
        label = drawing.plain(f"{curve.model} (upper bound)" if is_bound else curve.model)
        style = "--" if is_bound else "-"
        worst = [100 * r.value for r in curve.worst]
        (line,) = axes.step(curve.eps, worst, where="post", label=label, linestyle=style)
        low, high = ([100 * bound for bound in bounds] for bounds in zip(*((r.low, r.high) for r in curve.worst), strict=True))
        axes.fill_between(curve.eps, low, high, step="post", color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlim(0, table.manifest.eps_value)
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"ε ({table.manifest.threat})")
    axes.set_ylabel("robust accuracy in %, worst case")
    drawing.title(axes, heading(table), figure)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawing.png(figure)
