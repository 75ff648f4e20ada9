"""Accuracy against ε from one run of a minimum-norm attack: the model's known distances, and luck shown as luck."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from torch import nn

import rdc_bench
from rdc_bench.core.randomness import normal, row_keys
from rdc_bench.data import load_dataset
from rdc_bench.results.curves import security_curves
from rdc_bench.results.store import RunFolder, find_runs
from rdc_bench.results.summary import summarize


class ClassMeans(nn.Module):
    """The class whose mean image is nearest: linear logits, right for most images; optionally with noise on them."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        data = load_dataset("fashion-mnist", "test", 300)
        means = torch.stack([data.images[data.labels == label].mean(dim=0).flatten() for label in range(10)])
        self.weight, self.bias = nn.Parameter(2 * means), nn.Parameter(-means.square().sum(dim=1))
        self.noise, self.stochastic = noise, noise > 0

    def forward(self, x):
        logits = x.flatten(1) @ self.weight.T + self.bias
        return logits + self.noise * normal(row_keys(len(x)), (10,)) if self.noise else logits


@pytest.fixture
def folder(tmp_path, registered) -> RunFolder:
    registered.model("means", ClassMeans)
    registered.model("noisy", lambda: ClassMeans(noise=5.0))
    options = {"steps": 25, "eot": 4}
    models, attacks = ["means", "noisy"], ["fmn", "fgsm"]
    rdc_bench.run(
        models=models, threat="l2", eps="2", attacks=attacks, attack_options=options, n=12, repeats=4, out=tmp_path / "results"
    )
    (found,) = find_runs(tmp_path / "results")
    return found


def test_the_curve_is_that_of_the_distances(folder):
    manifest, records = folder.manifest(), folder.records()
    curve = next(c for c in security_curves(manifest, records) if c.model == "means")
    data, model = load_dataset("fashion-mnist", "test", 12), ClassMeans()
    with torch.no_grad():
        logits = model(data.images)
        right = logits.argmax(dim=1) == data.labels
        gap = logits.gather(1, data.labels[:, None]) - logits
        slope = (model.weight[data.labels][:, None] - model.weight[None]).norm(dim=2)
        nearest = (gap / slope).scatter(1, data.labels[:, None], torch.inf).amin(dim=1)  # whatever the image range
    assert curve.eps[0] == 0
    assert curve.eps[-1] == 2
    assert curve.worst[0].value == pytest.approx(right.float().mean().item())
    values = [rate.value for rate in curve.worst]
    assert values == sorted(values, reverse=True)
    assert values == [rate.value for rate in curve.avg]  # the model is deterministic
    # The image range can only make the nearest image farther: the curve lies above that of all space, but not by much.
    for eps, value in zip(curve.eps, values, strict=True):
        assert value >= (right & (nearest > eps * 1.001)).float().mean().item() - 1e-6
        assert value <= (right & (nearest * 1.6 > eps)).float().mean().item() + 1e-6
    assert values[0] > 0.5
    assert values[-1] < values[0] - 0.2


def test_at_the_runs_own_size_it_is_the_runs_robust_accuracy(folder):
    manifest, records = folder.manifest(), folder.records()
    for curve, summary in zip(security_curves(manifest, records), summarize(manifest, records), strict=True):
        assert curve.avg[-1].value == pytest.approx(summary.avg.value)
        assert curve.worst[-1].value == pytest.approx(summary.worst.value)
        assert curve.avg[0].value <= summary.clean.value + 1e-6


def test_images_without_a_verdict_count_as_in_the_runs_table(folder):
    """An image that one attack breaks in some draws, and on which the other failed, is broken in the value of either."""
    manifest, records = folder.manifest(), folder.records()
    failed = (records["attack"] == "fgsm") & (records["index"] % 2 == 0)
    records.loc[failed, ["adversarial_prediction", "distance", "success", "status"]] = [None, None, False, "failed"]
    for curve, summary in zip(security_curves(manifest, records), summarize(manifest, records), strict=True):
        assert (curve.avg[-1], curve.worst[-1]) == (summary.avg, summary.worst)
        assert curve.avg[0].upper is not None


def test_an_image_whose_attack_failed_counts_as_broken_and_widens_the_interval(folder):
    manifest, records = folder.manifest(), folder.records()
    whole = security_curves(manifest, records)[0]
    failed = records.copy()
    rows = (failed["model"] == "means") & (failed["attack"] != "clean") & (failed["clean_prediction"] == failed["label"])
    index = failed.loc[rows, "index"].iloc[0]
    rows &= failed["index"] == index
    failed.loc[rows, ["status", "distance", "adversarial_prediction"]] = ["failed", np.nan, np.nan]
    curve = security_curves(manifest, failed)[0]
    assert curve.worst[0].value == pytest.approx(whole.worst[0].value - 1 / 12)
    assert curve.worst[0].high == pytest.approx(whole.worst[0].high)


def test_the_report_holds_curves_of_runs_with_a_minimum_norm_attack_alone(folder, tmp_path):
    rdc_bench.run(models=["means"], attacks=["fgsm"], n=4, out=tmp_path / "results")
    written = {path.name: path for path in rdc_bench.report(tmp_path / "results", out=tmp_path / "report")}
    name = f"security-curve-{folder.path.name}"
    assert {file for file in written if file.startswith("security-curve")} == {f"{name}.csv", f"{name}.png"}
    assert written[f"{name}.png"].read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO(written[f"{name}.csv"].read_text())))
    assert {row["model"] for row in rows} == {"means", "noisy"}
    assert all(0 <= float(row["worst_low"]) <= float(row["worst"]) <= float(row["worst_high"]) <= 1 for row in rows)
