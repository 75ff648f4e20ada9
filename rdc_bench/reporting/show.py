"""Tables on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from rdc_bench.reporting.comparison import compare
from rdc_bench.reporting.render import terminal

#: Width of tables that go into a pipe or a file, where there is no terminal to fit.
WIDTH = 160


def show_run(path: Path) -> None:
    """Print the tables of one run, or of all runs in a results folder, on stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    terminal(compare(path), console)
