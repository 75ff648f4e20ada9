from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rdc_bench.core.errors import UserError
from rdc_bench.data import dataset_of_models, load_dataset
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Six images at each of five severities, whose labels repeat as in the original."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "fog.npy", rng.integers(0, 256, (30, 32, 32, 3), np.uint8))
    np.save(folder / "labels.npy", np.tile(np.array([3, 8, 0, 9, 1, 1], np.uint8), 5))
    return folder


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_one_severity_is_one_part_of_the_file(severity: int, files: Path) -> None:
    everything = np.load(files / "fog.npy")
    for place in (files, files.parent):
        dataset = load_dataset(f"cifar10-c:fog:{severity}", data_dir=place)
        assert dataset.name == f"cifar10-c:fog:{severity}"
        assert dataset.labels.tolist() == [3, 8, 0, 9, 1, 1]
        assert len(dataset.classes) == 10
        for i in range(6):
            expected = torch.from_numpy(everything[6 * (severity - 1) + i]).permute(2, 0, 1)
            assert torch.equal(dataset.pixels[i], expected)
    assert load_dataset(f"cifar10-c:fog:{severity}", n=2, data_dir=files).sha256 == dataset.head(2).sha256


def test_the_cache_is_looked_at(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDC_BENCH_CACHE", str(files.parent))
    assert len(load_dataset("cifar10-c:fog:2")) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10-c", "write cifar10-c:CORRUPTION:SEVERITY"),
        ("cifar10-c:fog", "write cifar10-c:CORRUPTION:SEVERITY"),
        ("cifar10-c:frog:1", r"unknown corruption of cifar10-c 'frog'\. Did you mean 'fog'"),
        ("cifar10-c:fog:0", "severities are 1 to 5, not '0'"),
        ("cifar10-c:fog:x", "severities are 1 to 5, not 'x'"),
        ("cifar10-c:snow:1", "holds neither CIFAR-10-C/snow.npy nor snow.npy"),
        ("cifar10-d:fog:1", "unknown dataset 'cifar10-d:fog:1'"),
    ],
)
def test_names(name: str, message: str, files: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(name, data_dir=files)
    assert "\n" not in str(caught.value)


def test_there_are_test_images_alone(files: Path) -> None:
    with pytest.raises(UserError, match="no split 'train'"):
        load_dataset("cifar10-c:fog:1", "train", data_dir=files)
    with pytest.raises(UserError, match=r"n = 7, but cifar10-c:fog:1 .* holds 6"):
        load_dataset("cifar10-c:fog:1", n=7, data_dir=files)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("fog.npy", np.zeros((29, 32, 32, 3), np.uint8), "29 images and 30 labels"),
        ("fog.npy", np.zeros((30, 32, 32, 3)), "not an array of uint8 with 4 dimensions"),
        ("fog.npy", np.zeros((30, 3, 32, 32), np.uint8), "not images of 32 × 32 × 3"),
        ("labels.npy", np.full(30, 10, np.uint8), "labels from 0 to 9"),
        ("labels.npy", np.zeros((30, 1), np.uint8), "not an array of uint8 with 1 dimensions"),
        ("labels.npy", np.array([print] * 30, object), "cannot be read as an array of numbers"),
        ("labels.npy", b"PK\x03\x04", "cannot be read as an array of numbers"),
        ("labels.npy", b"", "cannot be read as an array of numbers"),
    ],
)
def test_other_contents(file: str, content: np.ndarray | bytes, message: str, files: Path) -> None:
    if isinstance(content, bytes):
        (files / file).write_bytes(content)
    else:
        np.save(files / file, content, allow_pickle=True)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("cifar10-c:fog:1", data_dir=files)
    assert "\n" not in str(caught.value)


def test_models_for_the_clean_images_take_the_corrupted_ones() -> None:
    assert dataset_of_models("cifar10-c:fog:3") == "cifar10"
    assert dataset_of_models("cifar100") == "cifar100"


def test_a_run_takes_them_for_a_model_of_cifar10(files: Path) -> None:
    config = RunConfig(
        models=("standard-cifar10",), threat="linf", dataset="cifar10-c:fog:2", data_dir=files, n=3, attacks=("fgsm",)
    )
    plan = make_plan(config)
    assert plan.dataset.name == "cifar10-c:fog:2"
    assert plan.run_id.startswith("cifar10-c_fog_2-linf-")
    with pytest.raises(UserError, match="for dataset 'fashion-mnist', not 'cifar10-c:fog:2'"):
        make_plan(config.model_copy(update={"models": ("standard-fashion-mnist",)}))
