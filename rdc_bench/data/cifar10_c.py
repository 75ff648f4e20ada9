"""CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261): CIFAR-10's test images under common corruptions.

Each corruption is a dataset of its own at each severity, ``cifar10-c:fog:3``. The files are those that the authors publish:
``CIFAR-10-C/fog.npy``, uint8 (50000, 32, 32, 3), the test images at severity 1 first, and ``CIFAR-10-C/labels.npy``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.data.cifar import CIFAR10, SHAPE
from rdc_bench.data.dataset import Dataset, DatasetInfo
from rdc_bench.data.files import cache_dir

NAME = "cifar10-c"
FOLDER = "CIFAR-10-C"
SEVERITIES = 5
#: The last four were meant for validation.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
SUMMARY = f"CIFAR-10's test images, corrupted: {NAME}:CORRUPTION:SEVERITY (Hendrycks & Dietterich 2019)"


def variant(name: str) -> DatasetInfo:
    """What ``cifar10-c:CORRUPTION:SEVERITY`` names."""
    _, *parts = name.split(":")
    if len(parts) != 2:
        raise UserError(f"dataset {name!r}: write {NAME}:CORRUPTION:SEVERITY, for example {NAME}:fog:3")
    corruption, severity = parts
    if corruption not in CORRUPTIONS:
        raise unknown_name(f"corruption of {NAME}", corruption, CORRUPTIONS, f"Corruptions: {', '.join(CORRUPTIONS)}.")
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UserError(f"dataset {name!r}: severities are 1 to {SEVERITIES}, not {severity!r}")

    def load(split: str, *, n: int | None, data_dir: Path | None, allow_download: bool) -> Dataset:
        """The test images; there are no others, and nothing is downloaded."""
        if split != "test":
            raise UserError(f"{name}: has test images alone, no split {split!r}")
        folder = _folder(name, f"{corruption}.npy", data_dir)
        images, labels = _array(folder / f"{corruption}.npy", 4), _array(folder / "labels.npy", 1)
        if len(images) != len(labels) or not len(labels) or len(labels) % SEVERITIES:
            raise UserError(f"{folder}: {len(images)} images and {len(labels)} labels, where {SEVERITIES} equal parts belong")
        if images.shape[1:] != (*SHAPE[1:], SHAPE[0]) or labels.max() >= len(CIFAR10.classes):
            raise UserError(f"{folder / f'{corruption}.npy'}: not images of 32 × 32 × 3 with labels from 0 to 9")
        each = len(labels) // SEVERITIES
        start = (int(severity) - 1) * each
        rows = slice(start, start + (each if n is None else max(0, min(n, each))))
        pixels = np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2))
        numbers = torch.from_numpy(labels[rows].astype(np.int64))
        return Dataset(name, split, torch.from_numpy(pixels), numbers, CIFAR10.classes, str(folder))

    return DatasetInfo(name, SUMMARY, CIFAR10.classes, SHAPE, load)


def _which_one(split: str, *, n: int | None, data_dir: Path | None, allow_download: bool) -> Dataset:
    raise UserError(f"dataset {NAME!r}: write {NAME}:CORRUPTION:SEVERITY, for example {NAME}:fog:3")


INFO = DatasetInfo(NAME, SUMMARY, CIFAR10.classes, SHAPE, _which_one)


def _folder(name: str, file: str, data_dir: Path | None) -> Path:
    place = data_dir or cache_dir()
    for folder in (place / FOLDER, place):
        if (folder / file).is_file() and (folder / "labels.npy").is_file():
            return folder
    raise UserError(
        f"{name}: {place} holds neither {FOLDER}/{file} nor {file}, with labels.npy; "
        "pass --data-dir with the folder of https://zenodo.org/records/2535967"
    )


def _array(path: Path, dimensions: int) -> np.ndarray:
    """Numbers below 256, not read before they are used. No object is unpickled."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an array of numbers ({error})") from error
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise UserError(f"{path}: not an array of uint8 with {dimensions} dimensions")
    return array
