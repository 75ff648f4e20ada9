"""The table of models across threats as text: what each cell says, and what is left open."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console

import rdc_bench
from rdc_bench.reporting import compare
from rdc_bench.reporting.render import markdown, terminal
from rdc_bench.reporting.side_by_side import threat_rows, threats_csv


@pytest.fixture
def results(tmp_path, registered, toys):
    """Both models under ℓ∞ and StAdv, one of them under fog too; StAdv fails on one model."""

    def planted(model, x, y, threat, *, generator):
        if threat.kind == "stadv" and not getattr(model, "stochastic", False):
            raise RuntimeError("planted")
        return x

    registered.attack("planted", planted, threats=("linf", "stadv", "fog"))
    for threat, models in (("linf", toys), ("stadv", toys), ("fog", ["noisy"])):
        rdc_bench.run(models=models, threat=threat, attacks=["planted"], n=8, repeats=3, out=tmp_path / "results")
    return tmp_path / "results"


def test_every_cell_is_the_figure_of_its_run(results):
    comparisons = compare(results)
    (across,) = comparisons.across
    frame = threat_rows(across).set_index("threat")
    assert [label.partition(" ")[0] for label in frame.index[:4]] == ["clean", "linf", "fog", "stadv"]
    by_run = {(table.manifest.threat, model.model): model for table in comparisons.runs for model in table.models}
    for threat in ("linf", "fog", "stadv"):
        row = next(label for label in frame.index if label.startswith(threat))
        summary = by_run[threat, "noisy"]
        assert summary.avg.value != summary.worst.value
        assert frame["noisy"][row] == f"{summary.avg.span} / {summary.worst.span}"
    assert frame["toy"]["linf 8/255"] == by_run["linf", "toy"].worst.span
    assert f"({by_run['stadv', 'toy'].undecided} undecided)" in frame["toy"]["stadv 0.05"]
    assert frame["toy"].iloc[2] == "–"  # fog


def test_a_model_that_lacks_a_threat_has_no_figures_over_the_set(results):
    (across,) = compare(results).across
    frame = threat_rows(across).set_index("threat")
    assert [label for label in frame.index if label.startswith("unseen")] == [
        f"unseen (2): {figure}" for figure in ("mean", "lowest", "union")
    ]
    assert (frame["toy"][frame.index.str.startswith(("unseen", "all"))] == "–").all()
    noisy = next(row for row in across.rows if row.model == "noisy")
    over = noisy.over["unseen"]
    worst = [cell.robust_images for label, cell in noisy.cells.items() if not label.startswith("linf")]
    assert over.union.worst.value == pytest.approx(np.logical_and.reduce(worst).mean())
    assert over.union.worst.percent in frame["noisy"]["unseen (2): union"]


def test_every_rendering_has_the_table(results, tmp_path):
    comparisons = compare(results)
    console = Console(width=160, record=True, file=io.StringIO())
    terminal(comparisons, console)
    for text in (console.export_text(), markdown(comparisons)):
        assert "all (3): union" in text
        assert "3 threats" in text
    rows = list(csv.DictReader(io.StringIO(threats_csv(comparisons.across))))
    assert {(row["model"], row["threat"]) for row in rows} == {
        *(("noisy", threat) for threat in ("linf", "stadv", "fog", "unseen", "all")),
        *(("toy", threat) for threat in ("linf", "stadv")),
    }
    paths = rdc_bench.report(results, out=tmp_path / "report", formats=["csv"])
    assert [path.name for path in paths] == ["report.csv", "threats.csv"]
