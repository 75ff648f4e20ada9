"""What a model says of images, under draws of its randomness that belong to the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.core.global_generators import model_apart
from rdc_bench.core.randomness import Key, draws_for, seed_of


def predictions(model: nn.Module, x: Tensor, keys: Sequence[Key], repeats: int) -> Tensor:
    """Predicted classes under ``repeats`` fresh draws of the model's randomness, (B, repeats); −1 for logits not finite.

    Args: x: (B, C, H, W). keys: of the draws, one per image.
    """
    with torch.no_grad(), draws_for(keys), model_apart(model, x.device, seed_of(*next(iter(keys), ()), "model")):
        logits = model(x.repeat(repeats, 1, 1, 1))
    predicted = logits.argmax(dim=1).masked_fill(~torch.isfinite(logits).all(dim=1), -1)
    return predicted.unflatten(0, (repeats, -1)).T.cpu()
