"""What is asked of a library of networks, and how its package is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from rdc_bench.core.errors import UserError, first_line
from rdc_bench.zoo.schema import LibrarySpec, ModelCard


class Published(NamedTuple):
    """What a library says of its own weights for a network.

    Attributes:
        architecture: the network's name, without that of the weights. mean, std: of each channel, for images in [0, 1].
        interpolation: how images are resized for them. weights: where they are; empty when there are none.
    """

    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    weights: str


@dataclass(frozen=True)
class Library:
    """A library of networks.

    Attributes:
        version: of the installed package. published: what it says of a network, by its name; raises ``UserError`` with close
            matches for a name that it does not have. make: the network of a card, with random weights.
    """

    version: str
    published: Callable[[str], Published]
    make: Callable[[LibrarySpec, ModelCard], nn.Module]


def find_library(name: str) -> Library:
    """``timm`` or ``torchvision``. Raises ``UserError`` when its package is not installed or cannot be imported."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"the package {error.name} is not installed; pip install 'rdc-bench[timm]'") from error
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"the package {name} cannot be imported ({first_line(error)}); does torchvision fit the installed torch?"
        ) from error
    library: Library = importlib.import_module(f"rdc_bench.libraries.of_{name}").LIBRARY
    return library
