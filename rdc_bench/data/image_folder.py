"""The user's own images: one folder per class, ``DIR/<class>/*.png`` or ``DIR/<split>/<class>/*.png``."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdc_bench.data.dataset import SPLITS, Dataset, DatasetInfo, rows_of_split
from rdc_bench.data.images import decode_picture, tally
from rdc_bench.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
#: Without the system's own lists, so that every machine knows the same endings.
_KINDS = mimetypes.MimeTypes()


def load(split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
    """Images of a folder, all of one size.

    Every visible folder in ``DIR`` is a class, also one without images. Classes are sorted by name, as text (``10`` before
    ``2``), and numbered in that order, and images by name within a class; then the classes take turns (first image of every
    class, second image of every class, …), so that the first ``n`` images are as balanced as they can be.

    ``DIR/<class>`` is a test set. With folders ``train``, ``validation`` or ``test`` in ``DIR``, each is a split; without
    ``validation``, it is the end of ``train``.

    Grey files have one channel and all others three; where both are among the images taken, all have three.
    :func:`rdc_bench.data.load_dataset` then gives them the channels of the model. What else is done to the pixels of some files
    (:func:`rdc_bench.data.images.decode_picture`) is said in :attr:`Dataset.changes`. Nothing is resized, as that would change
    the data.

    Hidden files, folders within a class, and files whose endings are of no image (``Thumbs.db``, ``notes.txt``) are ignored.

    Raises: ``UserError`` naming the file, for images of different sizes, for one that cannot be read or decoded, has several
        frames, is of a kind not read here (``.gif``, ``.tif``), or is a link that leads out of ``DIR``. None is left out in
        silence.
    """
    if data_dir is None:
        raise UserError("image-folder: pass --data-dir with a folder that holds one folder of images per class")
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: {'not a folder' if data_dir.exists() else 'no such folder'}")
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
    pixels, changes = _decode([path for path, _ in entries])
    labels = torch.tensor([label for _, label in entries], dtype=torch.int64)
    return Dataset("image-folder", split, pixels, labels, tuple(classes), str(folders[part]), changes)


INFO = DatasetInfo(
    "image-folder", "your own images: --data-dir DIR with DIR/<class>/*.png (or .jpg, .bmp, .webp)", None, None, load
)


def take_turns(by_class: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    """Images with their labels: the first image of every class, the second image of every class, …"""
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(by_class)))
    return [entry for turn in turns for entry in turn if entry is not None]


def images_by_class(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The images of every class, which may have none, both sorted by name.

    Raises: ``UserError`` for images that are not read here or lie outside of ``root``; ``OSError`` for what cannot be listed.
    """
    return {
        entry.name: [path for path in _listed(entry) if _is_image(path, root)]
        for entry in _listed(folder)
        if entry.is_dir() and _is_inside(entry, root)
    }


def read(path: Path) -> bytes:
    """The contents of a file. Raises ``UserError`` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _listed(folder: Path) -> list[Path]:
    """What is visible in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path, root: Path) -> bool:
    known = path.suffix.lower() in ENDINGS
    if path.is_dir() or not (known or (_KINDS.guess_type(path.name)[0] or "").startswith("image/")):
        return False
    if not known:
        raise UserError(f"{path}: {path.suffix} files are not read; make it one of {', '.join(ENDINGS)}, or move it away")
    return _is_inside(path, root)


def _is_inside(path: Path, root: Path) -> bool:
    """True. Raises ``UserError`` for links that lead elsewhere, or nowhere, and for what is neither file nor folder."""
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: {'a link that leads nowhere' if path.is_symlink() else 'not a file'}; move it away")
    if not path.resolve().is_relative_to(root):
        raise UserError(f"{path}: a link that leads out of {root}; put what it leads to into that folder, or remove it")
    return True


def _decode(paths: list[Path]) -> tuple[Tensor, tuple[str, ...]]:
    """uint8 (N, C, H, W), and what was done to the files' own pixels. The first image says what size all must have."""
    pictures = []
    for path in paths:
        pictures.append(decode_picture(read(path), str(path)))
        (first, second), (height, width) = pictures[0].pixels.shape[1:], pictures[-1].pixels.shape[1:]
        if (first, second) != (height, width):
            raise UserError(
                f"{paths[0]} has {first}×{second} pixels, {path} has {height}×{width}: all must have one size, the model's; "
                "resize or crop them first (nothing is resized here, as that would change the data)"
            )
    if not pictures:
        return torch.empty(0, dtype=torch.uint8), ()
    channels = max(len(picture.pixels) for picture in pictures)
    grey = sum(len(picture.pixels) < channels for picture in pictures)
    repeated = (f"{grey} of {len(pictures)} images: grey repeated in {channels} channels",) if grey else ()
    pixels = np.stack([np.broadcast_to(picture.pixels, (channels, *picture.pixels.shape[1:])) for picture in pictures])
    return torch.from_numpy(pixels), (*tally(pictures), *repeated)
