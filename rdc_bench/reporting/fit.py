"""Tables and lines that fit a terminal. Neither a name nor a figure is ever broken in two.

A table that is too wide goes on in further tables below it, each with the names again; the columns that are needed most come
first. A column of long texts becomes a list. Where not even one column fits beside the names, or blocks are the shorter, every
row becomes a block of lines. What is not for a terminal is as wide as it must be, so that a row is a line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

#: Columns of words, which begin at the left; figures end at the right.
WORDS = ("model", "threat", "attack", "source")
INDENT = "  "


def print_table(console: Console, frame: pd.DataFrame, title: str, needed: Sequence[str] = ()) -> None:
    """Print a frame; nothing in it is read as markup.

    Args: frame: the first column names the rows. needed: of the other columns, those that are needed most, from the first on.
    """
    frame = frame.astype(str)
    name, *others = frame.columns
    by_need = [column for column in needed if column in others] + [column for column in others if column not in needed]
    print_line(console, title, "bold")
    short = [column for column in by_need if _fits(console, frame[[name, column]])]
    parts = _parts(console, frame, short)
    in_parts, in_blocks = len(parts) * (len(frame) + 3), len(frame) * len(frame.columns)
    if (len(parts) > 1 and in_blocks < in_parts) or by_need[:1] != short[:1]:
        _print_blocks(console, frame)
        return
    for number, part in enumerate(parts):
        if number:
            console.print()
        console.print(_table(frame[[name, *(column for column in others if column in part)]]), crop=False)
    for column in others:
        if column not in short:
            _print_list(console, column, frame[name].tolist(), frame[column].tolist())


def print_line(console: Console, text: str, style: str = "", indent: str = "") -> None:
    """Print text, broken between words where it must be; what follows the first line is indented once more."""
    hanging = indent and indent + INDENT
    lines = textwrap.wrap(
        text,
        max(console.width, len(hanging) + 1),
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        console.print(escape(line), style=style, soft_wrap=True, highlight=False)


def _parts(console: Console, frame: pd.DataFrame, columns: Sequence[str]) -> list[list[str]]:
    """The columns in groups, each as large as fits beside the names, which are the frame's first column."""
    parts: list[list[str]] = []
    for column in columns:
        if parts and _fits(console, frame[[frame.columns[0], *parts[-1], column]]):
            parts[-1].append(column)
        else:
            parts.append([column])
    return parts


def _fits(console: Console, frame: pd.DataFrame) -> bool:
    unlimited = console.options.update(width=10**6)
    return Measurement.get(console, unlimited, _table(frame)).maximum <= console.width


def _table(frame: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in frame.columns:
        table.add_column(escape(column), justify="left" if column in WORDS else "right", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(value) for value in row))
    return table


def _print_list(console: Console, title: str, names: Sequence[str], texts: Sequence[str]) -> None:
    console.print()
    print_line(console, title, "bold")
    for name, text in zip(names, texts, strict=True):
        _print_item(console, name, f"{name}:", text)


def _print_blocks(console: Console, frame: pd.DataFrame) -> None:
    """Every row as its name, and below it a line for each figure."""
    name, *others = frame.columns
    longest = max(map(len, others))
    for row in frame.to_dict("records"):
        print_line(console, row[name])
        for column in others:
            _print_item(console, column, f"{column:{longest}} ", row[column])


def _print_item(console: Console, name: str, label: str, text: str) -> None:
    """A figure beside its label, or below its bare name where that is too long; what is longer than a line is prose."""
    if not text:
        return
    lines = [f"{INDENT}{label} {text}"]
    if len(lines[0]) > console.width:
        lines = [f"{INDENT}{name}:", 2 * INDENT + text]
    if len(lines[-1]) > console.width:
        print_line(console, f"{name}: {text}", indent=INDENT)
        return
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)
