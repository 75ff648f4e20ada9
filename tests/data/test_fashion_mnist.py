from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.core.errors import UserError
from rdc_bench.data import fashion_mnist, load_dataset
from rdc_bench.data.fashion_mnist import read_idx

needs_full_set = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", cache / "absent")


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Path:
    """A folder in torchvision's layout with 20 training and 5 test images, which stand for the official files."""
    folder = tmp_path / "data" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 5)):
        arrays = {
            f"{prefix}-images-idx3-ubyte": rng.integers(0, 256, (count, 28, 28), np.uint8),
            f"{prefix}-labels-idx1-ubyte": rng.integers(0, 10, count, np.uint8),
        }
        for stem, array in arrays.items():
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
            monkeypatch.setitem(fashion_mnist.SHA256, stem, hashlib.sha256(idx(array)).hexdigest())
    return folder


@pytest.mark.usefixtures("nothing_installed")
def test_bundled_images_need_nothing_else() -> None:
    data = load_dataset("fashion-mnist")
    assert data.pixels.shape == (1000, 1, 28, 28)
    assert data.pixels.dtype == torch.uint8
    assert data.labels.dtype == torch.int64
    assert [data.classes[i] for i in data.labels[:4]] == ["Ankle boot", "Pullover", "Trouser", "Trouser"]
    assert len(load_dataset("fashion-mnist", n=3)) == 3


@needs_full_set
def test_bundled_images_are_the_first_of_the_official_test_set() -> None:
    full = load_dataset("fashion-mnist", n=1001)
    assert len(load_dataset("fashion-mnist", data_dir=fashion_mnist.DEBIAN)) == 10000
    assert full.head(1000).sha256 == load_dataset("fashion-mnist").sha256


@needs_full_set
def test_training_and_validation_images_are_the_official_training_set() -> None:
    train, validation = load_dataset("fashion-mnist", "train"), load_dataset("fashion-mnist", "validation")
    official = read_idx(gzip.decompress((fashion_mnist.DEBIAN / "train-images-idx3-ubyte.gz").read_bytes()))
    assert (len(train), len(validation)) == (55000, 5000)
    assert torch.equal(torch.cat([train.pixels, validation.pixels])[:, 0], torch.from_numpy(official))


def test_torchvision_layout_is_found_below_or_at_data_dir(small_set: Path) -> None:
    below = load_dataset("fashion-mnist", data_dir=small_set.parents[1])
    at = load_dataset("fashion-mnist", data_dir=str(small_set))
    assert len(below) == 5
    assert below.sha256 == at.sha256
    assert len(load_dataset("fashion-mnist", "validation", data_dir=small_set)) == 2


def test_uncompressed_files_are_read(small_set: Path) -> None:
    packed = load_dataset("fashion-mnist", data_dir=small_set)
    for path in list(small_set.iterdir()):
        (small_set / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_dataset("fashion-mnist", data_dir=small_set).sha256 == packed.sha256


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_asked_for(n: int) -> None:
    with pytest.raises(UserError, match=f"n = {n}"):
        load_dataset("fashion-mnist", n=n)


def test_more_images_asked_for_than_there_are(small_set: Path) -> None:
    with pytest.raises(UserError, match=r"n = 6, but fashion-mnist \(test, .*\) holds 5 images"):
        load_dataset("fashion-mnist", n=6, data_dir=small_set)


@pytest.mark.usefixtures("nothing_installed")
def test_missing_full_set_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"dataset-fashion-mnist.*--data-dir.*--download.*1,000"):
        load_dataset("fashion-mnist", n=1001)


def test_data_dir_is_the_only_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not in"):
        load_dataset("fashion-mnist", n=10, data_dir=tmp_path, allow_download=True)


@pytest.mark.parametrize("damage", ["truncated", "garbled", "not gzip", "empty", "absent"])
def test_unreadable_file_is_named(small_set: Path, damage: str) -> None:
    path = small_set / "t10k-labels-idx1-ubyte.gz"
    raw = path.read_bytes()
    damaged = {"truncated": raw[:-9], "garbled": raw[:10] + b"\xff" * 12 + raw[22:], "not gzip": b"<html>", "empty": b""}
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz: "):
        load_dataset("fashion-mnist", data_dir=small_set)


def test_other_contents_are_refused(small_set: Path) -> None:
    path = small_set / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(5, np.uint8))))
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz: .*SHA-256 differs"):
        load_dataset("fashion-mnist", data_dir=small_set)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_idx_round_trip(array: np.ndarray) -> None:
    decoded = read_idx(idx(array))
    assert decoded.shape == array.shape
    assert np.array_equal(decoded, array)
    assert decoded.flags.writeable


@given(st.binary(max_size=40) | st.binary(max_size=300).map(lambda rest: b"\x00\x00\x08" + rest))
def test_other_bytes_are_no_idx_file_or_decode_whole(raw: bytes) -> None:
    try:
        array = read_idx(raw)
    except UserError:
        return
    assert idx(array) == raw


@pytest.mark.parametrize(
    ("change", "message"), [(lambda r: r[:-1], "truncated"), (lambda r: r + b"\0", "too long"), (lambda r: r[:6], "header")]
)
def test_idx_of_another_length(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_idx(change(idx(np.ones((2, 3), np.uint8))))
