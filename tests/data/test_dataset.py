from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rdc_bench.data import DATASETS, Dataset, list_datasets, load_dataset
from rdc_bench.data.dataset import rows_of_split
from rdc_bench.errors import UserError


@pytest.fixture
def dataset() -> Dataset:
    pixels = torch.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2).to(torch.uint8)
    return Dataset("toy", "test", pixels, torch.tensor([0, 1, 1, 0]), ("a", "b"), "memory")


def test_images_are_floats_in_the_unit_range(dataset: Dataset) -> None:
    white = replace(dataset, pixels=torch.full_like(dataset.pixels, 255))
    assert white.images.dtype == torch.float32
    assert white.images.eq(1).all()
    assert torch.equal((dataset.images * 255).round().byte(), dataset.pixels)


def test_sha256_depends_on_order_pixels_labels_and_shape_only(dataset: Dataset) -> None:
    pixels = dataset.pixels.clone()
    pixels[3, 2, 1, 1] += 1
    others = [
        replace(dataset, pixels=dataset.pixels.flip(0), labels=dataset.labels.flip(0)),
        replace(dataset, pixels=pixels),
        replace(dataset, labels=torch.tensor([0, 1, 1, 1])),
        replace(dataset, pixels=dataset.pixels.reshape(4, 3, 1, 4)),
        dataset.head(3),
    ]
    assert len({other.sha256 for other in [dataset, *others]}) == len(others) + 1
    assert replace(dataset, name="other", split="train", source="elsewhere").sha256 == dataset.sha256
    assert dataset.head(4).sha256 == dataset.sha256
    strided = dataset.pixels.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert replace(dataset, pixels=strided).sha256 == dataset.sha256


def test_between_keeps_order(dataset: Dataset) -> None:
    part = dataset.between(1, 3, split="validation")
    assert part.split == "validation"
    assert torch.equal(part.pixels, dataset.pixels[1:3])
    assert torch.equal(part.labels, dataset.labels[1:3])


@pytest.mark.parametrize("n", [0, -1, 5])
def test_head_out_of_range(dataset: Dataset, n: int) -> None:
    with pytest.raises(UserError, match=f"n = {n}"):
        dataset.head(n)


@pytest.mark.parametrize(
    ("total", "held_out"), [(60000, 5000), (10000, 5000), (9999, 1000), (5085, 509), (100, 10), (11, 2), (1, 1)]
)
def test_train_and_validation_cover_the_training_set_without_overlap(total: int, held_out: int) -> None:
    assert rows_of_split("train", total) == slice(0, total - held_out)
    assert rows_of_split("validation", total) == slice(total - held_out, total)
    assert rows_of_split("test", total) == slice(0, total)


def test_rows_of_split_takes_the_first_n() -> None:
    assert rows_of_split("validation", 100, 3) == slice(90, 93)
    assert rows_of_split("validation", 100, 30) == slice(90, 100)
    assert rows_of_split("test", 100, -1) == slice(0, 0)


def test_unknown_dataset_names_the_nearest_and_how_to_list() -> None:
    with pytest.raises(UserError, match=r"unknown dataset 'fashion_mnist'\. Did you mean 'fashion-mnist'.*list datasets"):
        load_dataset("fashion_mnist")


def test_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown split 'tests'\. Did you mean 'test'"):
        load_dataset("fashion-mnist", "tests")


def test_every_dataset_is_described() -> None:
    assert (
        list_datasets()
        == sorted(DATASETS)
        == [
            "cifar10",
            "cifar10-c",
            "cifar100",
            "fashion-mnist",
            "image-folder",
            "restricted-imagenet",
        ]
    )
    for name, info in DATASETS.items():
        assert info.name == name
        assert "\n" not in info.summary
        assert (info.classes is None) == (info.shape is None)
