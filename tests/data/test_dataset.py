from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.mark.parametrize("shape", [(4, 1, 2, 2), (4, 3, 5, 7), (4, 3, 1, 1)], ids=str)
def test_images_are_contiguous_whatever_was_given(shape: tuple[int, ...]) -> None:
    pixels = torch.randint(256, shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(4, dtype=torch.int64)
    for given in (pixels, pixels.flip(0)[:, :, :, ::1], pixels.repeat(2, 1, 1, 1)[::2]):
        data = Dataset("toy", "test", given, labels, ("a", "b"), "memory")
        assert torch.equal(data.pixels, given)
        for part in (data, data.head(3), data.between(1, 3), data.with_channels(3), data.with_channels(1)):
            assert part.pixels.is_contiguous()
            assert part.images.is_contiguous()


def test_luminance_is_pillows_for_every_kind_of_colour(rng: np.random.Generator) -> None:
    colours = rng.integers(0, 256, (1, 40, 50, 3), np.uint8)
    colours[0, 0, :8] = [[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)]
    colours[0, 1] = np.arange(50)[:, None]
    data = Dataset("toy", "test", torch.from_numpy(colours.transpose(0, 3, 1, 2)), torch.zeros(1).long(), ("a",), "memory")
    grey = data.with_channels(1)
    assert torch.equal(grey.pixels[0, 0], torch.from_numpy(np.array(Image.fromarray(colours[0]).convert("L"))))
    assert grey.provenance == "memory (all images: colour converted to grey by luminance (Rec. 601))"
    again = grey.with_channels(3)
    assert torch.equal(again.pixels, grey.pixels.expand(-1, 3, -1, -1))
    assert torch.equal(again.with_channels(1).pixels, grey.pixels)  # grey made colour is the same grey again


def test_other_channels_are_left_alone(dataset: Dataset) -> None:
    assert dataset.with_channels(3) is dataset
    assert dataset.with_channels(4) is dataset


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_published_dataset_are_what_they_are(channels: int) -> None:
    known = load_dataset("fashion-mnist", n=2)
    asked = load_dataset("fashion-mnist", n=2, channels=channels)
    assert asked.image_shape == (1, 28, 28)
    assert (asked.sha256, asked.changes) == (known.sha256, ())


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
