"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from rdc_bench.reporting.comparison import Comparisons, compare
from rdc_bench.reporting.fit import print_line, print_table
from rdc_bench.reporting.render import terminal, terminal_set
from rdc_bench.results.across import SideBySide
from rdc_bench.results.diagnosis import Diagnosis

#: Width of what goes into a pipe or a file, where there is no terminal to fit: enough for every row to be one line.
WIDTH = 10_000


def show(comparisons: Comparisons) -> None:
    """Print the tables of one run, or of all runs in a results folder, on stdout."""
    terminal(comparisons, _console())


def show_set(table: SideBySide, runs: Sequence[Path]) -> None:
    """Print the runs of a set of threats as one table on stdout."""
    terminal_set(table, [compare(path).runs[0] for path in runs], _console())


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the checks of a diagnosis on stdout."""
    from rdc_bench.reporting.diagnosis import terminal as terminal_diagnosis  # matplotlib takes long to import

    terminal_diagnosis(diagnosis, _console())


def show_table(frame: pd.DataFrame, title: str, footnotes: Sequence[str] = ()) -> None:
    """Print one table on stdout."""
    console = _console()
    print_table(console, frame, title)
    for line in footnotes:
        print_line(console, line, "yellow")


def _console() -> Console:
    console = Console(emoji=False)  # ":fog:" is part of a dataset's name
    return console if console.is_terminal else Console(width=WIDTH, emoji=False)
