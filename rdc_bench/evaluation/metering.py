"""Counting network evaluations inside models, where they happen.

One evaluation is one image-sized row passed through a module marked ``is_network`` (or through the whole model when none is):
a classifier's forward pass is one, a diffusion classifier with T′ levels is T′ or more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Meter:
    """Rows that went forward and backward through networks."""

    forward: int = 0
    backward: int = 0


@contextlib.contextmanager
def metered(model: nn.Module) -> Iterator[Meter]:
    """Count the network evaluations of ``model`` within the block."""
    meter = Meter()

    def count(_module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        rows = len(args[0])
        meter.forward += rows
        parts = output.values() if isinstance(output, Mapping) else [output] if isinstance(output, Tensor) else output
        first = next((part for part in parts if isinstance(part, Tensor) and part.requires_grad), None)
        if first is not None:
            first.register_hook(lambda _gradient: _add_backward(meter, rows))

    networks = [module for module in model.modules() if getattr(module, "is_network", False)] or [model]
    hooks = [module.register_forward_hook(count) for module in networks]
    try:
        yield meter
    finally:
        for hook in hooks:
            hook.remove()


def _add_backward(meter: Meter, rows: int) -> None:
    meter.backward += rows
