"""The user's own images: one folder per class, ``DIR/<class>/*.png`` or ``DIR/<split>/<class>/*.png``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdc_bench.data.dataset import SPLITS, Dataset, DatasetInfo, rows_of_split
from rdc_bench.data.images import Shape, decode_image
from rdc_bench.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def load(split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
    """Images of a folder, all of one size and mode (grey or RGB).

    Classes are sorted by name, and images by name within a class; then the classes take turns (first image of every class,
    second image of every class, …), so that the first ``n`` images are as balanced as they can be.

    ``DIR/<class>`` is a test set. With folders ``train``, ``validation`` or ``test`` in ``DIR``, each is a split; without
    ``validation``, it is the end of ``train``. Hidden files and links that lead out of ``DIR`` are ignored.
    """
    if data_dir is None:
        raise UserError("image-folder: pass --data-dir with a folder that holds one folder of images per class")
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder")
    folders = {name: data_dir / name for name in SPLITS if (data_dir / name).is_dir()} or {"test": data_dir}
    found = {name: images_by_class(folder, data_dir.resolve()) for name, folder in folders.items()}
    # A split that has its own folder is all of it; otherwise training and validation images are cut from one set.
    whole = split == "test" or "validation" in found
    part = split if whole else "train"
    if part not in found:
        raise UserError(f"{data_dir}: has no folder {part!r} for the images of that split")
    # Over all splits, so that a class has the same label in each.
    classes = sorted(set().union(*found.values()))
    entries = take_turns([found[part].get(name, []) for name in classes])
    if not entries:
        raise UserError(f"{folders[part]}: no images: it must hold one folder per class with {', '.join(ENDINGS)} files")
    entries = entries[rows_of_split("test" if whole else split, len(entries), n)]
    pixels = _decode([path for path, _ in entries])
    labels = torch.tensor([label for _, label in entries], dtype=torch.int64)
    return Dataset("image-folder", split, pixels, labels, tuple(classes), str(folders[part]))


INFO = DatasetInfo(
    "image-folder", "your own images: --data-dir DIR with DIR/<class>/*.png (or .jpg, .bmp, .webp)", None, None, load
)


def take_turns(by_class: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    """Images with their labels: the first image of every class, the second image of every class, …"""
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(by_class)))
    return [entry for turn in turns for entry in turn if entry is not None]


def images_by_class(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The images of every class that has any, both sorted by name."""
    found = {}
    for entry in sorted(_inside(folder, root)):
        if entry.is_dir():
            images = [path for path in sorted(_inside(entry, root)) if path.suffix.lower() in ENDINGS and path.is_file()]
            if images:
                found[entry.name] = images
    return found


def _inside(folder: Path, root: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in visible if path.resolve().is_relative_to(root)]


def _decode(paths: list[Path]) -> Tensor:
    """uint8 (N, C, H, W); the first image says what all must be."""
    shape: Shape | None = None
    images = []
    for path in paths:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        pixels = decode_image(raw, str(path), shape)
        shape = pixels.shape[0], pixels.shape[1], pixels.shape[2]
        images.append(pixels)
    return torch.from_numpy(np.stack(images)) if images else torch.empty(0, dtype=torch.uint8)
