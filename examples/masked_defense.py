"""A defence that only masks its gradient, to see it caught.

rdc-bench diagnose --plugin examples/masked_defense.py quantized-fashion-mnist

The bundled network with standard training is shown images rounded to five shades of grey. Rounding has the gradient zero almost
everywhere: attacks that follow it go nowhere, and the network looks several times as robust as it is.
"""

from __future__ import annotations

from torch import Tensor, nn

import rdc_bench

SHADES = 5


class Quantized(nn.Module):
    """A classifier behind a rounding of the pixels to equally spaced shades."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
        return self.classifier((x * (SHADES - 1)).round() / (SHADES - 1))


@rdc_bench.model("quantized-fashion-mnist", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10, license="MIT")
def quantized_fashion_mnist() -> nn.Module:
    """Standard training behind five shades of grey"""
    return Quantized(rdc_bench.load_model("standard-fashion-mnist"))
