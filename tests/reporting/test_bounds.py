"""Doubts about the attacks on a model are told with every figure that they concern, and with no other."""

import csv
import dataclasses
import io

import pytest
from rich.console import Console

import rdc_bench
from rdc_bench.reporting import compare
from rdc_bench.reporting.comparison import Comparisons
from rdc_bench.reporting.figure import png
from rdc_bench.reporting.render import csv as render_csv
from rdc_bench.reporting.render import markdown, terminal
from rdc_bench.reporting.robustbench import model_info
from rdc_bench.reporting.side_by_side import threat_rows, threats_csv
from rdc_bench.reproduction.table import Row, table
from rdc_bench.results.across import StoredRun, side_by_side, together
from rdc_bench.results.store import find_runs

DOUBT = "the loss rose along 1 of 8 gradients"


@pytest.fixture
def stored(tmp_path, toys, registered) -> list[StoredRun]:
    """Both toys under two threats."""
    registered.attack("still", lambda model, x, y, threat, *, generator: x, threats=("linf", "stadv"))
    for threat in ("linf", "stadv"):
        rdc_bench.run(models=toys, threat=threat, attacks=["still"], n=6, repeats=2, out=tmp_path)
    return [StoredRun.read(folder) for folder in find_runs(tmp_path)]


@pytest.fixture
def doubted(tmp_path, stored) -> Comparisons:
    """Under ℓ∞ there are doubts about ``toy``."""
    comparisons = compare(tmp_path)
    for run in comparisons.runs:
        run.models[:] = [with_doubts(m) if run.manifest.threat == "linf" else m for m in run.models]
    for run in stored:
        if run.manifest.threat == "linf":
            run.models[:] = map(with_doubts, run.models)
    return dataclasses.replace(comparisons, across=side_by_side(stored))


def with_doubts(summary):
    return summary._replace(doubts=(DOUBT,)) if summary.model == "toy" else summary


def test_tables_mark_the_figures_and_say_why(doubted) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    terminal(doubted, console)
    for text in (console.export_text(), markdown(doubted)):
        lines = text.splitlines()
        (note,) = {line for line in lines if line.startswith("≤ upper bound: ")}
        assert note.startswith(f"≤ upper bound: toy: {DOUBT}; see `rdc-bench diagnose`")
        marked = [line for line in lines if "≤" in line and line != note]
        assert marked
        assert all("toy" in line or line.strip("| ").startswith(("linf", "all")) for line in marked)
        assert not any("noisy" in line and "≤" in line for line in lines if "toy" not in line)


def test_what_needs_no_attack_and_what_is_certain_is_not_marked(doubted) -> None:
    (across,) = doubted.across
    frame = threat_rows(across).set_index("threat")
    assert frame["toy"]["linf 8/255"].startswith("≤ ")
    assert frame["toy"]["all (2): union"].startswith("≤ ")
    assert not frame["toy"]["clean"].startswith("≤")
    assert not frame["toy"]["stadv 0.05"].startswith("≤")
    assert not frame["noisy"].str.startswith("≤").any()


def test_data_carry_the_doubts(doubted) -> None:
    for row in doubted.as_json()["rows"]:
        is_doubted = (row["model"], row["threat"]) == ("toy", "linf")
        assert (row["upper_bound"], row["doubts"]) == (is_doubted, [DOUBT] if is_doubted else [])
    for text in (render_csv(doubted), threats_csv(doubted.across)):
        for row in csv.DictReader(io.StringIO(text)):
            is_doubted = row["model"] == "toy" and row["threat"] in ("linf", "all")
            assert (row["upper_bound"], row["doubts"]) == (str(is_doubted), DOUBT if is_doubted else "")


def test_the_figure_differs(doubted) -> None:
    run = next(run for run in doubted.runs if run.manifest.threat == "linf")
    certain = dataclasses.replace(run, models=[m._replace(doubts=()) for m in run.models])
    assert png(run) != png(certain)


def test_runs_taken_together_inherit_doubts(stored) -> None:
    stored[0].models[:] = map(with_doubts, stored[0].models)
    assert together("toy", stored).doubts == (DOUBT,)
    assert together("noisy", stored).doubts == ()
    rows = [Row(name, name, {}, together(name, stored)) for name in ("toy", "noisy")]
    assert [cell.startswith("≤") for cell in table(rows)["all together, worst"]] == [True, False]


def test_robustbench_is_told_that_the_figure_is_unreliable(doubted) -> None:
    run = doubted.runs[0]
    for entry, summary in ((e, next(m for m in run.models if m.model == e.name)) for e in run.manifest.models):
        assert model_info(run, entry, summary)["unreliable"] is bool(summary.doubts)
