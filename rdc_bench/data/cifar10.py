"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 32×32 RGB images of 10 kinds of things.

Read from torchvision's cache layout (``cifar-10-batches-py/data_batch_1 …``), from the Hugging Face Hub's parquet layout
(``plain_text/test-00000-of-00001.parquet``; columns ``img: {bytes, path}`` and ``label``), from a single parquet file, or
downloaded.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rdc_bench.data.dataset import Dataset, DatasetInfo, rows_of_split
from rdc_bench.data.files import cache_dir, download
from rdc_bench.data.images import Shape, decode_image
from rdc_bench.data.plain_pickle import load_plain
from rdc_bench.errors import UserError
from rdc_bench.files import write_atomically

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE: Shape = (3, 32, 32)
FOLDER = "cifar-10-batches-py"
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"  # the only checksum that its authors publish


def load(split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
    """CIFAR-10 in the order of its files; ``validation`` is the end of the training set, which ``train`` leaves out.

    ``data_dir`` may also be one parquet file, which then is the whole training set or the whole test set.
    """
    part = "test" if split == "test" else "train"
    files = _find(part, data_dir, allow_download)
    read = _read_parquet if files[0].suffix == ".parquet" else _read_batches
    pixels, labels = read(files, split, n)
    source = files[0] if len(files) == 1 else files[0].parent
    return Dataset("cifar10", split, pixels, labels, CLASSES, str(source))


INFO = DatasetInfo("cifar10", "32×32 RGB photographs of animals and vehicles (Krizhevsky 2009)", CLASSES, SHAPE, load)


def _find(part: str, data_dir: Path | None, allow_download: bool) -> list[Path]:
    """The files that together hold the training or the test images; a given ``data_dir`` is the only place looked at."""
    if data_dir is not None and data_dir.is_file():
        return [_checked_file(data_dir, part)]
    place = data_dir or cache_dir()
    for folder in (place / FOLDER, place):
        batches = [folder / name for name in BATCHES[part]]
        if all(path.is_file() for path in batches):
            return batches
    for folder in (place / "plain_text", place):
        if parquet := _parquet_files(folder, part):
            return parquet
    if allow_download and data_dir is None:
        _download()
        return [cache_dir() / FOLDER / name for name in BATCHES[part]]
    raise UserError(
        f"cifar10: {place} holds neither {FOLDER}/{BATCHES[part][0]} nor {part}*.parquet (also looked in plain_text/); "
        "pass --data-dir with a folder in torchvision's or the Hub's layout, or pass --download without --data-dir"
    )


def _checked_file(path: Path, part: str) -> Path:
    if path.suffix != ".parquet":
        raise UserError(f"{path}: --data-dir takes a folder or a .parquet file")
    other = "train" if part == "test" else "test"
    if path.name.startswith(other):
        raise UserError(f"{path}: by its name this is the {other} set, but images of the {part} set were asked for")
    return path


def _parquet_files(folder: Path, part: str) -> list[Path]:
    """All shards of a part, or its one file without a shard number; empty when there is neither."""
    candidates = sorted(folder.glob(f"{part}*.parquet"))
    shards = {path: match for path in candidates if (match := re.fullmatch(rf"{part}-(\d+)-of-(\d+)\.parquet", path.name))}
    if shards:
        count = max(int(match[2]) for match in shards.values())
        if [(int(match[1]), int(match[2])) for match in shards.values()] != [(i, count) for i in range(count)]:
            names = ", ".join(path.name for path in shards)
            raise UserError(f"{folder}: not one complete set of {part} shards: {names}")
        return list(shards)
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise UserError(f"{folder}: several files may be the {part} set ({names}); pass the file itself as --data-dir")
    return candidates


def _read_batches(files: list[Path], split: str, n: int | None) -> tuple[Tensor, Tensor]:
    batches = [_read_batch(path) for path in files]
    pixels = np.concatenate([pixels for pixels, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    rows = rows_of_split(split, len(labels), n)
    return torch.from_numpy(pixels[rows]), torch.from_numpy(labels[rows])


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    batch = {
        key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in load_plain(raw, str(path)).items()
    }
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise UserError(f"{path}: not a CIFAR-10 batch: 'data' is not a uint8 array of shape (N, 3072)")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise UserError(f"{path}: not a CIFAR-10 batch: 'labels' is not a list of {len(pixels)} numbers")
    return pixels.reshape(-1, *SHAPE), _checked_labels(labels, str(path))


def _read_parquet(files: list[Path], split: str, n: int | None) -> tuple[Tensor, Tensor]:
    """Decodes only the images that are asked for."""
    name = ", ".join(str(path) for path in files)
    try:
        table = pa.concat_tables([pq.ParquetFile(path).read(columns=["img", "label"]) for path in files])
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as parquet ({error})") from error
    if table.column_names != ["img", "label"] or not pa.types.is_struct(table.schema.field("img").type):
        raise UserError(f"{name}: has no columns 'img' ({{bytes, path}}) and 'label'")
    labels = _checked_labels(table["label"].to_pylist(), name)
    rows = rows_of_split(split, len(labels), n)
    encoded = table["img"].slice(rows.start, rows.stop - rows.start).to_pylist()
    pixels = np.empty((len(encoded), *SHAPE), np.uint8)
    for i, image in enumerate(encoded):
        raw = image.get("bytes") if image else None
        if not isinstance(raw, bytes):
            raise UserError(f"{name}: row {rows.start + i} holds no image bytes")
        pixels[i] = decode_image(raw, f"{name}: row {rows.start + i}", SHAPE)
    return torch.from_numpy(pixels), torch.from_numpy(labels[rows])


def _checked_labels(labels: list, name: str) -> np.ndarray:
    if not labels:
        raise UserError(f"{name}: holds no images")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise UserError(f"{name}: labels are not whole numbers from 0 to {len(CLASSES) - 1}")
    return np.array(labels, np.int64)


def _download() -> None:
    """Fetch the official archive into the cache and write its batches beside it.

    The members are read, not extracted: no path, link or permission in the archive has any effect.
    """
    archive = cache_dir() / "cifar-10-python.tar.gz"
    download(URL, archive)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != MD5:
        archive.unlink()
        raise UserError(f"{URL}: what was downloaded is not the official CIFAR-10 archive (MD5 {digest}); it was removed")
    with tarfile.open(archive) as tar:
        for name in [*BATCHES["train"], *BATCHES["test"], "batches.meta"]:
            member = tar.extractfile(f"{FOLDER}/{name}")
            if member is None:
                raise UserError(f"{archive}: {FOLDER}/{name} is not a file")
            write_atomically(cache_dir() / FOLDER / name, member.read())
