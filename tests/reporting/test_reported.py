import io

import pytest
from rich.console import Console

import rdc_bench
from rdc_bench.core.card_files import card_names, read_card
from rdc_bench.reporting import compare
from rdc_bench.reporting.render import csv, markdown, terminal
from rdc_bench.results.statistics import wilson
from rdc_bench.zoo.schema import ModelCard

CARD = """
schema_version: 1
name: {name}
title: A competitor
role: baseline
dataset: {dataset}
image_shape: [1, 28, 28]
num_classes: 10
license: MIT
source: a test
model: {{kind: reported, architecture: none, weights: none, missing: everything}}
reported:
- {{metric: clean, percent: "90.00", n: 100, source: paper A}}
- {{metric: robust, threat: linf, eps: 8/255, attack: "PGD | 20", percent: "43.00", n: 100, source: paper A}}
- {{metric: worst, threat: linf, eps: 16/510, attack: EOT, percent: "12.50", n: 400, draws: 10, source: paper B}}
- {{metric: robust, threat: linf, eps: 4/255, attack: PGD, percent: "61.00", n: 100, source: paper A}}
- {{metric: robust, threat: l2, eps: "0.5", attack: PGD, percent: "62.00", n: 100, source: paper A}}
"""


@pytest.fixture
def results(tmp_path, monkeypatch, toys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name, dataset in (("competitor", "fashion-mnist"), ("of-other-images", "cifar10")):
        (tmp_path / "models" / f"{name}.yaml").write_text(CARD.format(name=name, dataset=dataset))
    (tmp_path / "models" / "faulty.yaml").write_text("not: a card")
    rdc_bench.run(models=["toy"], attacks=["fgsm"], n=4, eps="8/255", out=tmp_path / "results")
    return tmp_path / "results"


def test_figures_of_the_same_dataset_and_threat_are_rows_marked_as_reported(results):
    rows = compare(results).as_json()["rows"]
    measured, robust, worst = rows
    assert measured["source"] == "measured"
    assert [(row["source"], row["cited"], row["model"]) for row in (robust, worst)] == [
        ("reported", "paper A", "competitor"),
        ("reported", "paper B", "competitor"),
    ]
    assert set(measured) - {"role"} <= set(robust)
    assert robust["robust"]["avg"] == wilson(0.43, 100).as_json()
    assert robust["clean"]["value"] == 0.9
    assert worst["robust"]["worst"]["value"] == 0.125
    assert worst["robust"]["avg"] is None
    assert worst["clean"] is None  # paper B reports none, and paper A's is of other images


def test_tables_keep_them_apart_from_what_was_measured(results):
    tables = compare(results)
    console = Console(width=200, record=True, file=io.StringIO())
    terminal(tables, console)
    printed = console.export_text()
    for text in (printed, markdown(tables)):
        own, elsewhere = text.split("Reported elsewhere, not measured here")
        assert "competitor" not in own
        for expected in ("reported clean", "reported robust", "12.50 (worst draw)", "400 × 10 draws", "paper B"):
            assert expected in elsewhere
        assert "61.00" not in text
        assert "of-other-images" not in text
    assert r"PGD \| 20" in markdown(tables)
    assert "43.00" in markdown(tables)
    assert "43.00" not in printed  # there, the lowest figure of each model alone
    assert "competitor" not in csv(tables)


@pytest.mark.parametrize("name", sorted(name for name in card_names("models")))
def test_every_figure_of_a_packaged_card_is_a_count_of_images_or_says_why_not(name):
    """Of the packaged cards, as of any: the schema refuses others. Here the arithmetic is done once more, by enumeration."""
    for figure in read_card(card_names("models")[name], ModelCard).reported:
        assert figure.source
        if figure.n is None:
            continue
        total = figure.n * (1 if figure.metric == "worst" else figure.draws)
        decimals = len(figure.percent.partition(".")[2])
        # Sources round halves up or to even: both are what some source would print.
        printed = {f"{100 * k / total + shift:.{decimals}f}" for k in range(total + 1) for shift in (-1e-9, 1e-9)}
        assert figure.percent in printed or figure.note, f"{figure.percent} % of {figure.n} images"
