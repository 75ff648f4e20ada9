"""A library's network behind its preprocessing: images in [0, 1] to logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdc_bench.conversion.architecture import check_fit
from rdc_bench.conversion.checkpoints import read_checkpoint
from rdc_bench.core.errors import UserError, first_line
from rdc_bench.libraries.library import find_library
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.parts import check_weights, weights_path
from rdc_bench.zoo.schema import LibrarySpec, ModelCard

#: A count of training steps. Networks do not use it once they are trained, and old checkpoints lack it.
_COUNTER = "num_batches_tracked"


class Preprocessed(nn.Module):
    """``network((resized x − mean) / std)``, differentiable throughout.

    Resizing is torch's, with antialiasing; bicubic values may leave [0, 1] a little, and are not cut off.

    Args:
        network: from normalised images to logits (B, K). mean, std: one for each channel.
        resize: height and width that images are brought to, None for none. interpolation: ``bilinear`` or ``bicubic``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        resize: int | None = None,
        interpolation: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.resize = resize
        self.interpolation = interpolation
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
        if self.resize and self.interpolation:
            x = F.interpolate(x, (self.resize, self.resize), mode=self.interpolation, align_corners=False, antialias=True)
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits


def load(loaded: LoadedCard) -> nn.Module:
    """The module of a card whose kind is a library, with the weights beside the card, in eval mode.

    Raises: ``UserError`` when the library is not installed or lacks the network, the weights are not the card's or do not fit,
        or the network cannot take the card's images.
    """
    card, spec = loaded.card, loaded.card.model
    assert isinstance(spec, LibrarySpec)
    path = weights_path(loaded, spec.weights)
    check_weights(path, spec.weights.sha256)
    library = find_library(spec.kind)
    library.published(spec.architecture)  # raises for a network that it does not have
    try:
        network = library.make(spec, card)
    except UserError:
        raise
    except Exception as error:  # somebody else's constructor
        raise UserError(f"{spec.kind}:{spec.architecture} cannot be made for {_shown(card)}: {first_line(error)}") from error
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(_COUNTER)}
    state = counters | read_checkpoint(path).state
    try:
        check_fit(state, network)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    network.load_state_dict(state)
    module = Preprocessed(network, spec.mean, spec.std, spec.resize, spec.interpolation).eval()
    _check_logits(module, card, spec)
    return module


def _check_logits(module: nn.Module, card: ModelCard, spec: LibrarySpec) -> None:
    """Show it one image, before it is shown many."""
    try:
        with torch.no_grad():
            found = tuple(module(torch.zeros(1, *card.image_shape)).shape)
    except Exception as error:  # somebody else's network, on images of a size that it may not know
        raise UserError(
            f"{spec.kind}:{spec.architecture} does not take {_shown(card)} ({first_line(error)}); "
            "resize (--model-arg resize=224) brings images to another size first"
        ) from error
    if found != (1, card.num_classes):
        raise UserError(
            f"{spec.kind}:{spec.architecture} makes {list(found)} of an image, not logits of {card.num_classes} classes"
        )


def _shown(card: ModelCard) -> str:
    return f"{'×'.join(map(str, card.image_shape))} images"
