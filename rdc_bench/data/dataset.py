"""What a dataset is: labelled images with a fingerprint, cut into splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rdc_bench.errors import UserError

SPLITS = ("train", "validation", "test")
VALIDATION = 5000


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in a fixed order.

    Attributes:
        name: e.g. ``"fashion-mnist"``. split: ``train``, ``validation`` or ``test``.
        pixels: uint8 (N, C, H, W), contiguous whatever was given. labels: int64 (N,).
        classes: class names, index = label. source: where the bytes came from, for the record.
        changes: what was done to the pixels of the files, each in a few words.
    """

    name: str
    split: str
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Decoders leave channels last. Attacks and files would inherit that layout.
        object.__setattr__(self, "pixels", self.pixels.contiguous())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """Float images in [0, 1], (N, C, H, W), contiguous."""
        return self.pixels.float() / 255

    @property
    def provenance(self) -> str:
        """The source, and what was done to what came from there, in one line."""
        return f"{self.source} ({'; '.join(self.changes)})" if self.changes else self.source

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shape, pixels and labels: equal exactly when the images used are the same, in the same order."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.numpy().tobytes())
        digest.update(self.labels.to(torch.uint8 if len(self.classes) <= 256 else torch.int64).numpy().tobytes())
        return digest.hexdigest()

    def head(self, n: int) -> Dataset:
        """The first ``n`` images; raises ``UserError`` when there are fewer, or none is asked for."""
        if n < 1:
            raise UserError(f"n = {n}: at least one image is needed")
        if n > len(self):
            raise UserError(f"n = {n}, but {self.name} ({self.split}, from {self.source}) holds {len(self)} images")
        return self.between(0, n)

    def between(self, start: int, stop: int, split: str | None = None) -> Dataset:
        """Images ``start`` to ``stop − 1``, optionally under another split's name."""
        return replace(self, split=split or self.split, pixels=self.pixels[start:stop], labels=self.labels[start:stop])

    def with_channels(self, channels: int) -> Dataset:
        """Grey images repeated in three channels, or colour images made grey: by Rec. 601's luma, as Pillow's mode L rounds it.

        Other numbers of channels are left as they are.
        """
        if (self.image_shape[0], channels) == (1, 3):
            return self._changed(self.pixels.expand(-1, 3, -1, -1), "grey repeated in 3 channels")
        if (self.image_shape[0], channels) == (3, 1):
            red, green, blue = self.pixels.int().unbind(dim=1)
            luma = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
            return self._changed(luma[:, None].to(torch.uint8), "colour converted to grey by luminance (Rec. 601)")
        return self

    def _changed(self, pixels: Tensor, change: str) -> Dataset:
        return replace(self, pixels=pixels, changes=(*self.changes, f"all images: {change}"))


class Loader(Protocol):
    """What reads a dataset."""

    def __call__(self, split: str, *, n: int | None, data_dir: Path | None, allow_download: bool) -> Dataset:
        """At least the first ``n`` images of a split, as far as there are so many (all when None)."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before it is read.

    Attributes:
        summary: one line for a list of datasets. load: reads it.
        classes: class names, index = label; shape: (C, H, W). Both None where they depend on the user's files.
    """

    name: str
    summary: str
    classes: tuple[str, ...] | None
    shape: tuple[int, int, int] | None
    load: Loader


def rows_of_split(split: str, total: int, n: int | None = None) -> slice:
    """Rows of the first ``n`` images (all when None) of a split, within the set of ``total`` images that it is cut from.

    ``validation`` is the last 5,000 training images (the last tenth of fewer than 10,000), ``train`` the rest; ``test`` is
    the whole test set.
    """
    held_out = VALIDATION if total >= 2 * VALIDATION else -(-total // 10)
    start, stop = {"train": (0, total - held_out), "validation": (total - held_out, total), "test": (0, total)}[split]
    return slice(start, stop if n is None else min(stop, start + max(n, 0)))
