"""Threats side by side: the union against counting by hand, and which runs stand beside which."""

import dataclasses

import numpy as np
import pytest

import rdc_bench
from rdc_bench.cards import find_threat_card
from rdc_bench.results.across import StoredRun, side_by_side
from rdc_bench.results.store import find_runs

N, REPEATS = 8, 3


THREATS = {"linf": "8/255", "l2": "0.5", "stadv": "0.05", "fog": None}


@pytest.fixture
def runs(tmp_path, registered, toys):
    """Runs of two models under four threats: one that took place, and its copies, whose records are to be written anew."""
    registered.attack("still", lambda model, x, y, threat, *, generator: x, threats=("linf",))
    rdc_bench.run(models=toys, threat="linf", attacks=["still"], n=N, repeats=REPEATS, out=tmp_path / "results")
    (folder,) = find_runs(tmp_path / "results")
    run = StoredRun.read(folder)
    return [
        dataclasses.replace(
            run, manifest=run.manifest.model_copy(update={"threat": name, "eps": eps or find_threat_card(name).default_eps})
        )
        for name, eps in THREATS.items()
    ]


def rewritten(run, rng):
    """The run with other outcomes, and of each model the share of repeats and whether all of them held, per image."""
    table, truth = run.records.copy(), {}
    clean = table["attack"] == "clean"
    table["clean_prediction"] = table["label"]
    table.loc[~clean, "adversarial_prediction"] = np.where(rng.random((~clean).sum()) < 0.8, table["label"][~clean], -1)
    for model in table["model"].unique():
        rows = table[~clean & (table["model"] == model)]
        held = rows["adversarial_prediction"] == rows["label"]
        truth[model] = np.array([held[rows["index"] == i].mean() for i in range(N)])
    return dataclasses.replace(run, records=table), truth


@pytest.mark.parametrize("seed", range(3))
def test_union_mean_and_lowest_agree_with_counting(runs, seed):
    rng = np.random.default_rng(seed)
    changed, truths = zip(*(rewritten(run, rng) for run in runs), strict=True)
    (table,) = side_by_side(changed)
    assert {c.label for c in table.columns[:2]} == {"l2 0.5", "linf 8/255"}
    assert [c.sets for c in table.columns] == [("all",), ("all",), ("unseen", "all"), ("unseen", "all")]
    for row in table.rows:
        shares = {run.manifest.threat: truth[row.model] for run, truth in zip(changed, truths, strict=True)}
        for name, inside in (("unseen", ["stadv", "fog"]), ("all", list(shares))):
            over, of_each = row.over[name], np.stack([shares[threat] for threat in inside])
            assert over.union.avg.value == pytest.approx(of_each.min(axis=0).mean())
            assert over.union.worst.value == pytest.approx((of_each == 1).all(axis=0).mean())
            assert over.mean["avg"] == pytest.approx(of_each.mean())
            assert over.mean["worst"] == pytest.approx((of_each == 1).mean(axis=1).mean())
            assert over.lowest["worst"][0] == pytest.approx((of_each == 1).mean(axis=1).min())
    worst = [row.over["all"].union.worst.value for row in table.rows]
    assert worst == sorted(worst, reverse=True)


def test_an_image_undecided_under_one_threat_is_undecided_over_the_set_unless_another_breaks_it(runs):
    changed = []
    for run in runs:
        table = run.records.copy()
        table["clean_prediction"] = table["label"]
        attacked = table["attack"] != "clean"
        table.loc[attacked, "adversarial_prediction"] = table["label"][attacked]
        if run.manifest.threat == "stadv":
            table.loc[attacked & (table["index"] < 2), ["adversarial_prediction", "status"]] = [None, "failed"]
        if run.manifest.threat == "fog":
            table.loc[attacked & (table["index"] == 1), "adversarial_prediction"] = -1
        changed.append(dataclasses.replace(run, records=table))
    (table,) = side_by_side(changed)
    union = table.rows[0].over["unseen"].union
    assert union.undecided == 1
    assert (union.worst.value, union.worst.upper) == pytest.approx(((N - 2) / N, (N - 1) / N))


def test_only_runs_on_the_same_images_with_the_same_effort_stand_together(runs):
    first = runs[0]
    other_images = dataclasses.replace(first, manifest=first.manifest.model_copy(update={"data_sha256": "0" * 64}))
    more_effort = dataclasses.replace(first, manifest=first.manifest.model_copy(update={"profile": "paper"}))
    assert [len(table.columns) for table in side_by_side([*runs, other_images, more_effort])] == [4, 1, 1]


def test_a_threat_at_another_size_has_its_column_and_is_in_no_set(runs):
    run = next(run for run in runs if run.manifest.threat == "stadv")
    smaller = dataclasses.replace(run, manifest=run.manifest.model_copy(update={"eps": "0.01", "eps_value": 0.01}))
    (table,) = side_by_side([*runs, smaller])
    assert [c.sets for c in table.columns if c.label == "stadv 0.01"] == [()]
    assert "stadv 0.01" in table.rows[0].cells


def test_a_model_that_changed_between_runs_is_two_models_and_has_no_union(runs):
    first, *others = runs
    entries = [entry.model_copy(update={"weights": {"w": "1" * 64}}) for entry in first.manifest.models]
    changed = dataclasses.replace(first, manifest=first.manifest.model_copy(update={"models": entries}))
    (table,) = side_by_side([changed, *others])
    assert len(table.rows) == 4
    assert len({row.model for row in table.rows}) == 4
    assert all("all" not in row.over for row in table.rows)
