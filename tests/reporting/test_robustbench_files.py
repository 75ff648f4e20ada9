"""Runs as RobustBench's files, against the run's own records."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.randomness import normal, row_keys
from rdc_bench.data import load_dataset
from rdc_bench.zoo.loading import MODELS
from rdc_bench.zoo.schema import ModelCard

N = 12


class Linear(nn.Module):
    """Ten fixed random directions of 32×32 images, optionally with noise on the logits."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.randn(3072, 10, generator=torch.Generator().manual_seed(0))
        self.noise = noise
        self.stochastic = noise > 0

    def forward(self, x: Tensor) -> Tensor:
        logits = (x - 0.5).flatten(1) @ self.weight
        return logits + self.noise * normal(row_keys(len(x)), (10,)).to(x) if self.noise else logits


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Random images in CIFAR-10's place, labelled as ``Linear`` without noise sees them."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, 3, 32, 32), np.uint8)
    labels = Linear()(torch.from_numpy(pixels).float() / 255).argmax(dim=1)
    rows = []
    for image, label in zip(pixels, labels.tolist(), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
        rows.append({"img": {"bytes": buffer.getvalue(), "path": None}, "label": label})
    path = tmp_path / "test.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def run(registered, cifar10: Path, tmp_path: Path):
    """Run two models on those images: one plain, with a card that quotes a figure; one with noise."""

    def add(name: str, noise: float, **changes) -> None:
        rdc_bench.model(name, dataset="cifar10", image_shape=(3, 32, 32), num_classes=10)(lambda: Linear(noise))
        card, factory = MODELS._entries.pop(name).target
        MODELS.register(name, (ModelCard.model_validate({**card.model_dump(), **changes}), factory), "test")

    figure = {"metric": "robust", "threat": "linf", "eps": "8/255", "percent": "71.50", "n": 200, "source": "a paper"}
    add("plain", 0.0, title="A plain model", paper="Doe et al. 2023, arXiv 2301.00001", reported=[figure])
    add("noisy", 20.0)

    def start(**options):
        options = {"models": ["plain", "noisy"], "attacks": ["pgd", "fgsm"], "n": N, "repeats": 3, "eps": "8/255", **options}
        return rdc_bench.run(data_dir=cifar10, out=tmp_path / "results", **options)

    return start


def written(results: Path, out: Path) -> dict[str, Path]:
    paths = rdc_bench.report(results, out=out, formats=["robustbench"])
    return {str(path.relative_to(out)): path for path in paths}


@pytest.mark.parametrize("keep", ["worst", "all"])
def test_files_say_what_the_run_found(run, cifar10: Path, tmp_path: Path, keep: str) -> None:
    result = run(keep=keep)
    files = written(result.path, tmp_path / "report")
    assert set(files) == {
        f"{folder}/cifar10/Linf/{name}.{ending}"
        for name in ("plain", "noisy")
        for folder, ending in (("model_info", "json"), ("adversarial", "pt"))
    }
    info = json.loads(files["model_info/cifar10/Linf/plain.json"].read_text())
    summary = result.models[0]
    assert summary.worst.value < summary.clean.value == 1.0  # the attacks had something to break, and broke some of it
    assert info["clean_acc"] == "100.00"
    assert info["external"] == f"{100 * summary.worst.value:.2f}"
    assert "autoattack_acc" not in info  # it was not run
    assert (info["eps"], info["reported"], info["name"]) == ("8/255", "71.50", "A plain model")
    assert (info["link"], info["authors"], info["venue"]) == ("https://arxiv.org/abs/2301.00001", "Doe et al.", "arXiv 2023")
    for said in ("pgd", "fgsm", f"first {N} test images", result.path.name):
        assert said in info["footnote"]

    images = torch.load(files["adversarial/cifar10/Linf/plain.pt"], weights_only=True)
    clean = load_dataset("cifar10", "test", N, data_dir=cifar10)
    assert images.shape == clean.images.shape
    assert images.dtype == torch.float32
    assert (images - clean.images).abs().max() <= 8 / 255 + 1e-6
    robust = (Linear()(images).argmax(dim=1) == clean.labels).double().mean()
    assert info["external"] == f"{100 * robust:.2f}"


def test_draws_of_a_randomised_model_are_told(run, tmp_path: Path) -> None:
    result = run(models=["noisy"])
    info = json.loads(written(result.path, tmp_path / "report")["model_info/cifar10/Linf/noisy.json"].read_text())
    assert "each of 3 draws" in info["footnote"]
    assert (info["venue"], info["authors"], info["additional_data"]) == ("N/A", "N/A", None)


def test_a_failed_attack_makes_the_figure_unreliable(run, registered, tmp_path: Path) -> None:
    def broken(model, x, y, threat, *, generator):
        raise RuntimeError("out of luck")

    registered.attack("broken", broken)
    result = run(models=["plain"], attacks=["broken"])
    info = json.loads(written(result.path, tmp_path / "report")["model_info/cifar10/Linf/plain.json"].read_text())
    assert info["unreliable"] is True
    assert info["external"] == "0.00"
    assert f"{N} images without a verdict" in info["footnote"]


def test_two_runs_of_a_model_are_not_mixed(run, tmp_path: Path) -> None:
    first, second = run(models=["plain"]), run(models=["plain"], n=N - 1)
    with pytest.raises(UserError, match="cifar10/Linf/plain is in the runs"):
        rdc_bench.report(tmp_path / "results", out=tmp_path / "report", formats=["robustbench"])
    assert not (tmp_path / "report").exists()
    for result in (first, second):
        assert written(result.path, tmp_path / result.path.name)


def test_other_datasets_have_no_place_there(toys, tmp_path: Path) -> None:
    result = rdc_bench.run(models=["toy"], attacks=["fgsm"], n=2, out=tmp_path / "results")
    with pytest.raises(UserError, match="cifar10, cifar100, imagenet"):
        written(result.path, tmp_path / "report")


def test_a_name_cannot_lead_out_of_the_folder(run, tmp_path: Path) -> None:
    result = run(models=["plain"])
    manifest = json.loads((result.path / "run.json").read_text())
    manifest["models"][0]["card"]["model"] = {"kind": "robustbench", "dataset": "cifar10", "threat": "Linf", "id": "../../up"}
    (result.path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="cannot be that of a file"):
        written(result.path, tmp_path / "report")
