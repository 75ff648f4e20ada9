"""Restricted ImageNet (Tsipras et al. 2019, arXiv 1805.12152): nine groups of ImageNet's classes, at 64×64 pixels here.

Its test images are those of ImageNet's validation set (Russakovsky et al. 2015, arXiv 1409.0575) in the groups, 10,150 in
all. The RDC paper names the groups by the first ImageNet class of each (151, 281, 30, 33, 80, 365, 389, 118, 300), whose
label its class-conditional denoiser is given. ImageNet may not be passed on, so the images are the user's: one folder of
images per WordNet id, as torchvision keeps them, or one per group.

Each image is cut to its central square and scaled to 64×64 by Pillow's Lanczos filter, as the training images of NVlabs' EDM
network for ImageNet at 64 pixels were. The paper attacks at 256×256 and lets the classifier scale down, so its figures and
those measured here are not of the same threat.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from rdc_bench.data.dataset import Dataset, DatasetInfo
from rdc_bench.data.files import cache_dir
from rdc_bench.data.image_folder import images_by_class, read, take_turns
from rdc_bench.data.images import Shape, decode_square, tally
from rdc_bench.errors import UserError

SIZE = 64
SHAPE: Shape = (3, SIZE, SIZE)

#: ImageNet's classes (its 1,000 WordNet ids in order) in each group, in the paper's order.
GROUPS = {
    "dog": range(151, 269),
    "cat": range(281, 286),
    "frog": range(30, 33),
    "turtle": range(33, 38),
    "bird": range(80, 101),
    "primate": range(365, 383),
    "fish": range(389, 398),
    "crab": range(118, 122),
    "insect": range(300, 320),
}
CLASSES = tuple(GROUPS)
IMAGENET_CLASSES = 1000


def load(split: str, *, n: int | None = None, data_dir: Path | None = None, allow_download: bool = False) -> Dataset:
    """The groups take turns (first image of every group, second image of every group, …), each in the order of file names.

    ``DIR`` or ``DIR/val`` holds either ImageNet's 1,000 folders, named by WordNet id, or the nine folders ``dog``, ``cat``, ….
    There is a ``test`` split alone.
    """
    if split != "test":
        raise UserError(f"restricted-imagenet has a test split alone (ImageNet's validation images), no {split!r} split")
    place = data_dir or cache_dir() / "imagenet"
    if not place.is_dir():
        advice = "ImageNet cannot be downloaded from here; " if allow_download else ""
        raise UserError(
            f"restricted-imagenet: {place}: no such folder; {advice}"
            "pass --data-dir with ImageNet's validation images, one folder per WordNet id"
        )
    folder = place / "val" if (place / "val").is_dir() else place
    entries = take_turns(_by_group(folder))[:n]
    pictures = [decode_square(read(path), str(path), SIZE) for path, _ in entries]
    pixels = torch.from_numpy(np.array([picture.pixels for picture in pictures], np.uint8).reshape(-1, *SHAPE))
    labels = torch.tensor([label for _, label in entries], dtype=torch.int64)
    return Dataset("restricted-imagenet", split, pixels, labels, CLASSES, str(folder), tally(pictures))


INFO = DatasetInfo(
    "restricted-imagenet",
    "ImageNet's validation photographs of nine groups of animals at 64×64 RGB (Tsipras et al. 2019): --data-dir DIR with "
    "DIR/<WordNet id>/*.JPEG",
    CLASSES,
    SHAPE,
    load,
)


def _by_group(folder: Path) -> list[list[Path]]:
    """The images of each group, sorted by file name (ImageNet's validation names mix the classes of a group)."""
    found = {name: images for name, images in images_by_class(folder, folder.resolve()).items() if images}
    ids = sorted(name for name in found if re.fullmatch(r"n\d{8}", name))
    if len(ids) == IMAGENET_CLASSES:
        by_group = [[path for i in members for path in found[ids[i]]] for members in GROUPS.values()]
    elif all(name in found for name in CLASSES):
        by_group = [found[name] for name in CLASSES]
    else:
        missing = [name for name in CLASSES if name not in found]
        raise UserError(
            f"restricted-imagenet: {folder} holds images of {len(ids)} WordNet ids, where all {IMAGENET_CLASSES:,} are needed "
            f"to number them (or else the {len(CLASSES)} folders {', '.join(CLASSES)}; missing: {', '.join(missing)})"
        )
    return [sorted(paths, key=lambda path: path.name) for paths in by_group]
