"""Tables at any width: nothing is lost, and neither a name nor a figure is broken."""

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rdc_bench.reporting.fit import print_line, print_table
from rdc_bench.reporting.show import WIDTH

WORD = st.text("abcdef0123456789-[]/.", min_size=1, max_size=30)
FIGURE = st.from_regex(r"(≤ )?[0-9]{1,2}\.[0-9] \[[0-9]{1,2}\.[0-9], [0-9]{2}\.[0-9]\]", fullmatch=True)


@st.composite
def frames(draw) -> pd.DataFrame:
    columns = ["model", *draw(st.lists(WORD, min_size=1, max_size=9, unique=True).filter(lambda names: "model" not in names))]
    rows = draw(st.lists(WORD, min_size=1, max_size=5, unique=True))
    return pd.DataFrame([[row, *(draw(FIGURE) for _ in columns[1:])] for row in rows], columns=columns)


def printed(frame: pd.DataFrame, width: int, **options) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_table(console, frame, "a title", **options)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [40, 57, 80, 120])
@given(frame=frames())
def test_every_name_and_figure_is_whole_on_one_line(width: int, frame: pd.DataFrame) -> None:
    lines = printed(frame, width)
    text = "\n".join(lines)
    for row in frame.itertuples(index=False):
        for cell in row:
            assert cell in text
    for column in frame.columns[1:]:
        assert column in text
    assert max(map(len, lines)) <= width


@given(frame=frames())
def test_where_there_is_no_terminal_a_row_is_a_line(frame: pd.DataFrame) -> None:
    _, header, _, *rows = printed(frame, WIDTH)
    assert header.split() == list(frame.columns)
    assert [row.split()[0] for row in rows] == list(frame["model"])
    for row, cells in zip(rows, frame.itertuples(index=False), strict=True):
        assert row.split() == " ".join(cells).split()


def test_what_is_needed_most_comes_first_and_columns_keep_their_order() -> None:
    frame = pd.DataFrame(
        {"model": ["m" * 20] * 8} | {c: ["50.0 [40.0, 60.0]"] * 8 for c in ("first", "second", "third", "last")}
    )
    lines = printed(frame, 60, needed=("last", "first"))
    headers = [line.split() for line in lines if line.startswith("model")]
    assert headers == [["model", "first", "last"], ["model", "second", "third"]]


def test_a_column_of_long_texts_becomes_a_list() -> None:
    source = "a long source, with/a_path_that_is_longer_than_half_of_the_whole_line.json"
    lines = printed(pd.DataFrame({"model": ["a-model", "b-model"], "figure": ["1.0", "2.0"], "source": [source, ""]}), 60)
    assert "  a-model: a long source," in lines
    assert any(line.strip() == source.split()[-1] for line in lines)
    assert not any(line.startswith("  b-model") for line in lines)


def test_nothing_is_read_as_markup() -> None:
    console = Console(width=40, file=io.StringIO(), record=True)
    print_line(console, "see [red]this[/red] and [/nothing]")
    assert console.export_text() == "see [red]this[/red] and [/nothing]\n"
    assert any("[red]" in line for line in printed(pd.DataFrame({"model": ["[red]x"], "[b]figure": ["[1, 2]"]}), 80))
