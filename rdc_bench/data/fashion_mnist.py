"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747; MIT licence): 28×28 grey images of 10 kinds of clothing.

The first 1,000 test images are bundled. The full set is found in Debian's package ``dataset-fashion-mnist``, in torchvision's
cache layout, or downloaded.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from rdc_bench.core.errors import UserError
from rdc_bench.data.dataset import Dataset, DatasetInfo, rows_of_split
from rdc_bench.data.files import cache_dir, download

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
BUNDLED = 1000
MAX_RANK = 32  # of an IDX array: as many dimensions as every numpy takes

#: SHA-256 of the uncompressed IDX files (the compressed ones differ between distributors).
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def load(split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
    """Fashion-MNIST in official order; ``validation`` is the last 5,000 training images, which ``train`` leaves out.

    Without ``data_dir``, up to 1,000 test images come from the bundled file, anything else from the installed full set.
    """
    if split == "test" and data_dir is None and not allow_download and (n is None or n <= BUNDLED):
        return _bundled()
    prefix = "t10k" if split == "test" else "train"
    folder = _find(f"{prefix}-images-idx3-ubyte", data_dir, allow_download)
    pixels = torch.from_numpy(read_idx(_read_checked(folder, f"{prefix}-images-idx3-ubyte"))).unsqueeze(1)
    labels = torch.from_numpy(read_idx(_read_checked(folder, f"{prefix}-labels-idx1-ubyte"))).long()
    rows = rows_of_split(split, len(labels), n)
    return Dataset("fashion-mnist", split, pixels[rows], labels[rows], CLASSES, str(folder))


INFO = DatasetInfo(
    "fashion-mnist", "28×28 grey images of clothing (Xiao et al. 2017); 1,000 test images bundled", CLASSES, (1, 28, 28), load
)


def read_idx(raw: bytes) -> np.ndarray:
    """Decode an IDX file of unsigned bytes (magic 0x0000 08 rank, big-endian sizes, data)."""
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or raw[3] > MAX_RANK:
        raise UserError("not an IDX file of unsigned bytes")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise UserError("IDX file is truncated: its header is incomplete")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise UserError(f"IDX file is truncated or too long: {len(raw) - start} bytes for shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def _bundled() -> Dataset:
    folder = files("rdc_bench.data") / "bundled"
    pixels = read_idx(gzip.decompress((folder / "fashion-mnist-t1000-images-idx3-ubyte.gz").read_bytes()))
    labels = read_idx(gzip.decompress((folder / "fashion-mnist-t1000-labels-idx1-ubyte.gz").read_bytes()))
    return Dataset(
        "fashion-mnist",
        "test",
        torch.from_numpy(pixels).unsqueeze(1),
        torch.from_numpy(labels).long(),
        CLASSES,
        f"bundled first {BUNDLED:,} test images",
    )


def _find(stem: str, data_dir: Path | None, allow_download: bool) -> Path:
    """The folder that holds ``stem`` (or ``stem.gz``); a given ``data_dir`` is the only place looked at."""
    cache = cache_dir() / "FashionMNIST" / "raw"
    places = [data_dir, data_dir / "FashionMNIST" / "raw"] if data_dir else [DEBIAN, cache]
    for place in places:
        if any((place / f"{stem}{ending}").is_file() for ending in ("", ".gz")):
            return place
    if allow_download and data_dir is None:
        for name in SHA256:
            download(f"{URL}/{name}.gz", cache / f"{name}.gz")
        return cache
    looked = ", ".join(str(p) for p in places)
    raise UserError(
        f"fashion-mnist: {stem}[.gz] is not in {looked}; install Debian's dataset-fashion-mnist, pass --data-dir with a "
        f"folder in torchvision's layout, or pass --download (only the first {BUNDLED:,} test images are bundled)"
    )


def _read_checked(folder: Path, stem: str) -> bytes:
    path = folder / stem if (folder / stem).is_file() else folder / f"{stem}.gz"
    try:
        raw = path.read_bytes() if path.name == stem else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if hashlib.sha256(raw).hexdigest() != SHA256[stem]:
        raise UserError(f"{path}: the contents are not the official Fashion-MNIST file (SHA-256 differs)")
    return raw
