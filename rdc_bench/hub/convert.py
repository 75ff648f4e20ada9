"""Foreign checkpoints made ours: safetensors, a plain configuration and a card, written all at once or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdc_bench.errors import UserError


class Shape(NamedTuple):
    """What the network is, where the checkpoint itself does not say: a class and its arguments, or a card that has both."""

    architecture: str | None = None
    config_file: Path | None = None
    like: str | None = None


class Label(NamedTuple):
    """What the card says of the weights, beyond what the network says."""

    name: str
    dataset: str | None = None
    license: str = "unstated"
    source: str | None = None


def convert(source: Path, dest: Path, shape: Shape, label: Label) -> Path:
    """Convert the checkpoint ``source`` into the folder ``dest``; returns the path of its card."""
    raise UserError(f"{source}: conversion is not there yet")
