"""What a dataset is: labelled images with a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rdc_bench.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in a fixed order.

    Attributes:
        name: e.g. ``"fashion-mnist"``. split: ``train``, ``validation`` or ``test``.
        pixels: uint8 (N, C, H, W). labels: int64 (N,).
        classes: class names, index = label. source: where the bytes came from, for the record.
    """

    name: str
    split: str
    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """Float images in [0, 1], (N, C, H, W)."""
        return self.pixels.float() / 255

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over shape, pixels and labels: equal exactly when the images used are the same, in the same order."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().tobytes())
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
