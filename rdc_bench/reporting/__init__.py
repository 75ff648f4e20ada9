"""Comparison tables from stored results, and from the figures that cards quote from elsewhere. Reads nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rdc_bench.errors import UserError, unknown_name
from rdc_bench.files import check_writable, write_atomically
from rdc_bench.reporting.comparison import Comparisons, compare
from rdc_bench.reporting.curves import curve_figures, curve_tables
from rdc_bench.reporting.render import csv, markdown
from rdc_bench.reporting.side_by_side import threats_csv

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Comparisons", "Format", "check_report", "compare", "write_report"]

Format = Literal["markdown", "csv", "png", "robustbench"]
DEFAULT_FORMATS: tuple[Format, ...] = ("markdown", "csv", "png")


def _csv(comparisons: Comparisons) -> dict[str, bytes]:
    across = {"threats.csv": threats_csv(comparisons.across).encode()} if comparisons.across else {}
    return {"report.csv": csv(comparisons).encode(), **across, **curve_tables(comparisons)}


def _png(comparisons: Comparisons) -> dict[str, bytes]:
    from rdc_bench.reporting.figure import png  # matplotlib takes long to import

    return {f"{table.path.name}.png": png(table) for table in comparisons.runs} | curve_figures(comparisons)


def _robustbench(comparisons: Comparisons) -> dict[str, bytes]:
    from rdc_bench.reporting.robustbench import robustbench_files  # needs torch

    return robustbench_files(comparisons)


#: What each format writes: file names and contents.
FORMATS: dict[str, Callable[[Comparisons], dict[str, bytes]]] = {
    "markdown": lambda comparisons: {"report.md": markdown(comparisons).encode()},
    "csv": _csv,
    "png": _png,
    "robustbench": _robustbench,
}


def check_report(out: Path, formats: Sequence[str]) -> None:
    """Raise ``UserError`` for a format that there is not, or a place that is no folder, before runs are read.

    ``OSError`` where ``out`` cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS, f"Formats: {', '.join(FORMATS)}.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, not a folder")
    check_writable(out)


def write_report(comparisons: Comparisons, out: Path, formats: Sequence[str]) -> list[Path]:
    """Write the tables into ``out``; returns the paths written."""
    files = {out / file: content for name in formats for file, content in FORMATS[name](comparisons).items()}
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)
