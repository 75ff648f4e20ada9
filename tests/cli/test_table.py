from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.cli.table import LEAST_PROSE, Column, definitions, tabbed, table

NAMES = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
PROSE = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=80)


@given(st.lists(st.tuples(NAMES, NAMES, PROSE), min_size=1, max_size=5), st.integers(1, 150))
def test_names_are_whole_or_left_out(rows, width):
    lines = table([Column("name"), Column("also"), Column("what", prose=True)], rows, width)
    assert len(lines) == len(rows) + 1
    with_second = lines[0].split()[1:2] == ["also"]
    for (name, also, _), line in zip(rows, lines[1:], strict=True):
        words = line.split()
        assert words[0] == name
        assert not with_second or words[1] == also
        assert with_second or len(words) == 1
    columns = max(len(name) for name, _, _ in rows), max(max(len(also) for _, also, _ in rows), len("also"))
    assert with_second == (max(columns[0], len("name")) + 2 + columns[1] <= width)


def test_prose_is_cut_where_it_has_room_and_left_out_where_it_has_not():
    columns, rows = [Column("name"), Column("what", prose=True)], [["a-name", "word " * 20], ["b", "short"]]
    assert table(columns, rows, 200)[1] == "a-name  " + " ".join(["word"] * 20)
    _, line, short = table(columns, rows, 8 + LEAST_PROSE)
    assert line.endswith("…")
    assert len(line) <= 8 + LEAST_PROSE
    assert short == "b       short"
    assert table(columns, rows, 8 + LEAST_PROSE - 1) == ["name", "a-name", "b"]
    assert table(columns, [["a", "short"]], 13)[1] == "a     short"


@given(st.lists(st.tuples(NAMES, st.lists(NAMES, min_size=1, max_size=8))), st.integers(1, 120))
def test_definitions_break_between_words_alone(facts, width):
    lines = definitions([(term, ", ".join(words)) for term, words in facts], width)
    told = [word for line in lines for word in line.replace(",", " ").split()]
    assert told == [word for term, words in facts for word in (term, *words)]


def test_what_says_nothing_is_left_out():
    assert definitions([("a", ""), ("b", "c")], 80) == ["b  c"]
    assert definitions([], 80) == []


def test_a_row_for_programs_is_one_line():
    assert tabbed(["a", "b\tc\n d", ""]) == "a\tb c d\t"
