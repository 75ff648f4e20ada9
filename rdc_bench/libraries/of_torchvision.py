"""torchvision's classifiers."""

from __future__ import annotations

import warnings

import torchvision
from torch import nn
from torchvision import models

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.libraries.library import Library, Published
from rdc_bench.zoo.schema import LibrarySpec, ModelCard


def published(name: str) -> Published:
    """What torchvision says of its default weights for a network, in their ``transforms``."""
    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name("network of torchvision", name, known, "torchvision.models.list_models() lists them all.")
    default = models.get_model_weights(name).DEFAULT
    transforms = default.transforms()
    return Published(name, tuple(transforms.mean), tuple(transforms.std), transforms.interpolation.value, default.url)


def make(spec: LibrarySpec, card: ModelCard) -> nn.Module:
    """The network, which takes 3 channels."""
    if card.image_shape[0] != 3:
        raise UserError(
            f"torchvision:{spec.architecture} takes images of 3 channels, not {card.image_shape[0]}; timm's take any"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how fresh weights are drawn, which others replace
        network: nn.Module = models.get_model(spec.architecture, weights=None, num_classes=card.num_classes)
    if hasattr(network, "transform_input"):  # whether it normalises once more depends on its weights, which do not say it
        raise UserError(
            f"torchvision:{spec.architecture} changes its input by rules of its own; take timm's network of that kind"
        )
    return network


LIBRARY = Library(torchvision.__version__, published, make)
