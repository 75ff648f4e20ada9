"""Names on a terminal of any width: one line a row, and no name is ever broken.

What a reader copies (a name, a size) is whole or not there: on a narrow terminal columns are left out from the right. Prose
alone may end in "…". (rich's tables shrink columns of fixed width too, so that they cannot promise this.)
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import click
from rich.cells import cell_len, set_cell_size

GAP = 2
#: Less room than this says nothing.
LEAST_PROSE = 24


class Column(NamedTuple):
    """A column's head. ``prose``: a text that may be cut; only the last column can be one."""

    title: str
    prose: bool = False


def on_terminal() -> bool:
    """Whether stdout is a terminal, and not a file or another program."""
    return sys.stdout.isatty()


def width() -> int:
    """Columns of the terminal; ``COLUMNS`` overrules it."""
    return shutil.get_terminal_size().columns


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A head and one line for each row, in as many of the columns as fit into ``width``; the first is always there."""
    lines = [[column.title for column in columns], *([" ".join(cell.split()) for cell in row] for row in rows)]
    sizes: list[int] = []
    for column, cells in zip(columns, zip(*lines, strict=True), strict=True):
        needed, room = max(map(cell_len, cells)), width - sum(size + GAP for size in sizes)
        if sizes and room < (min(needed, LEAST_PROSE) if column.prose else needed):
            break
        sizes.append(min(needed, room) if column.prose else needed)
    return [(" " * GAP).join(_fitted(cell, size) for cell, size in zip(line, sizes, strict=False)).rstrip() for line in lines]


def _fitted(text: str, size: int) -> str:
    return set_cell_size(text, size) if cell_len(text) <= size else set_cell_size(text, size - 1).rstrip() + "…"


def definitions(facts: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Terms and what is said of them, in two columns, the second broken between words; facts that say nothing are left out."""
    facts = [(term, text) for term, text in facts if text]
    indent = max((len(term) for term, _ in facts), default=0) + GAP
    lines = []
    for term, text in facts:
        first, *rest = prose(text, width - indent) or [""]
        lines += [f"{term:{indent}}{first}", *(" " * indent + line for line in rest)]
    return lines


def prose(text: str, width: int) -> list[str]:
    """A text in lines, broken between words alone."""
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)


def tabbed(cells: Iterable[str]) -> str:
    """A row for other programs: cells separated by tabs, with no tab or line break inside."""
    return "\t".join(" ".join(cell.split()) for cell in cells)


def heading(text: str, width: int) -> None:
    """Print a heading."""
    for line in prose(text, width):
        click.secho(line, bold=True)
