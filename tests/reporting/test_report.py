import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

import rdc_bench
from rdc_bench import UserError
from rdc_bench.cli.report import command
from rdc_bench.reporting import compare
from rdc_bench.reporting.render import csv as render_csv
from rdc_bench.reporting.render import markdown, terminal


@pytest.fixture
def results(tmp_path, registered):
    from rdc_bench.cards import ModelCard
    from rdc_bench.loading import MODELS

    registered.model("weak", lambda: registered.toy())
    registered.model("strong", lambda: registered.toy(noise=20.0))
    card, factory = MODELS.get("weak")
    baseline = ModelCard.model_validate({**card.model_dump(), "role": "baseline", "title": "a | b <script>[red]"})
    MODELS._entries.pop("weak")
    MODELS.register("weak", (baseline, factory), "test")
    rdc_bench.run(models=["weak", "strong"], attacks=["pgd", "fgsm"], n=10, repeats=3, out=tmp_path / "results")
    return tmp_path / "results"


def test_json_has_rows_and_comparisons(results):
    document = compare(results).as_json()
    assert {row["model"] for row in document["rows"]} == {"weak", "strong"}
    assert all(row["source"] == "measured" and row["threat"] == "linf" for row in document["rows"])
    (test,) = document["comparisons"]
    assert (test["model"], test["baseline"]) == ("strong", "weak")
    assert 0 <= test["p_value"] <= test["p_value_holm"] <= 1
    by_name = {row["model"]: row["robust"]["worst"]["value"] for row in document["rows"]}
    assert test["difference"] == pytest.approx(by_name["strong"] - by_name["weak"])


def test_files_are_written(results, tmp_path):
    paths = rdc_bench.report(results, out=tmp_path / "report")
    assert [p.suffix for p in paths] == [".md", ".csv", ".png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert {row["attack"] for row in rows} == {"clean", "union", "pgd", "fgsm"}
    assert all(0 <= float(row["avg_low"]) <= float(row["avg"]) <= float(row["avg_high"]) <= 1 for row in rows)


def test_every_rendering_shows_every_model_with_intervals(results):
    tables = compare(results)
    console = Console(width=160, record=True, file=io.StringIO())
    terminal(tables, console)
    for text in (console.export_text(), markdown(tables), render_csv(tables)):
        assert "weak" in text
        assert "strong" in text
    assert "[" in markdown(tables)
    assert "best baseline" in markdown(tables)
    assert "upper bounds" in markdown(tables)  # what the quick profile is, is said with its figures


def test_the_vote_is_shown_everywhere(results):
    tables = compare(results)
    console = Console(width=160, record=True, file=io.StringIO())
    terminal(tables, console)
    assert "robust majority" in console.export_text()
    page = markdown(tables)
    assert "robust majority" in page
    assert "avg / majority / worst" in page
    for row in csv.DictReader(io.StringIO(render_csv(tables))):
        assert float(row["worst"]) <= float(row["majority"]) <= 1
        assert float(row["majority_upper"]) == float(row["majority"])  # nothing is undecided here
    for row in tables.as_json()["rows"]:
        assert set(row["robust"]["majority"]) == {"value", "low", "high"}


def test_without_a_randomised_model_there_is_no_vote_to_show(tmp_path, toys):
    rdc_bench.run(models=["toy"], attacks=["pgd", "fgsm"], n=4, out=tmp_path)
    assert "majority" not in markdown(compare(tmp_path)).partition("##")[2]


def test_undecided_images_are_an_interval_in_every_rendering(tmp_path, registered):
    def fails(model, x, y, threat, *, generator):
        raise RuntimeError("no memory")

    def idle(model, x, y, threat, *, generator):
        return x

    registered.attack("fails", fails)
    registered.attack("idle", idle)
    registered.model("hardly-noisy", lambda: registered.toy(noise=0.01))
    rdc_bench.run(models=["hardly-noisy"], attacks=["idle", "fails"], n=20, repeats=3, out=tmp_path)
    tables = compare(tmp_path)
    (summary,) = tables.runs[0].models
    assert summary.undecided > 0
    console = Console(width=160, record=True, file=io.StringIO())
    terminal(tables, console)
    for text in (console.export_text(), markdown(tables)):
        assert f"0.0–{100 * summary.worst.upper:.1f} [" in text
        assert f"0.0–{100 * summary.majority.upper:.1f} [" in text
        assert f"({summary.attacks['fails'].failed} failed)" in text
    (row,) = (r for r in csv.DictReader(io.StringIO(render_csv(tables))) if r["attack"] == "union")
    assert (float(row["worst"]), float(row["worst_upper"])) == (0.0, pytest.approx(summary.worst.upper))
    assert tables.as_json()["rows"][0]["robust"]["avg"]["upper"] == pytest.approx(summary.avg.upper)


def test_unfinished_runs_are_left_out_and_named(results):
    run = next(results.glob("*/run.json"))
    other = results / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps({**json.loads(run.read_text()), "files": {}, "status": "interrupted"}))
    tables = compare(results)
    assert tables.unfinished == ["other"]
    assert "other" in markdown(tables)


def test_every_card_is_read_once_however_many_runs_there_are(results, tmp_path, toys, monkeypatch):
    for threat in ("linf", "l2", "stadv"):
        rdc_bench.run(models=["toy"], threat=threat, attacks=[{"stadv": "stadv"}.get(threat, "fgsm")], n=2, out=results)
    assert len(compare(results).runs) == 4
    reads: Counter[Path] = Counter()
    read_text = Path.read_text

    def counted(path, *args, **options):
        reads[path] += path.suffix == ".yaml"
        return read_text(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    for arguments in (["--format", "markdown", "--format", "csv"], ["--json"]):
        reads.clear()
        assert CliRunner().invoke(command, [str(results), "--out", str(tmp_path / "report"), *arguments]).exit_code == 0
        assert reads
        assert set(reads.values()) == {1}


def test_bad_formats_and_places_are_named(results, tmp_path):
    with pytest.raises(UserError, match="markdown"):
        rdc_bench.report(results, formats=["markdwon"])
    with pytest.raises(UserError, match="no such folder"):
        rdc_bench.report(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        rdc_bench.report(results, out=tmp_path / "file")
