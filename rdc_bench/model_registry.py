"""Which models there are: cards, and functions that plugins register. Nothing here builds one, or imports torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from rdc_bench.cards import ModelCard, RegisteredSpec, card_names
from rdc_bench.registry import Registry, origin_of

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[[], "nn.Module"]
MODELS: Registry[tuple[ModelCard, Factory]] = Registry("model", {})


def model(
    name: str, *, dataset: str, image_shape: tuple[int, int, int], num_classes: int, license: str = "unstated"
) -> Callable[[Factory], Factory]:
    """Register a function without arguments that makes a classifier (images in [0, 1] to logits) as the model ``name``."""

    def decorate(factory: Factory) -> Factory:
        origin = origin_of(inspect.getmodule(factory))
        card = ModelCard(
            schema_version=1,
            name=name,
            title=(factory.__doc__ or name).split("\n")[0],
            role="defense",
            dataset=dataset,
            image_shape=image_shape,
            num_classes=num_classes,
            license=license,
            source=f"registered by {origin}",
            model=RegisteredSpec(kind="registered", factory=name),
        )
        MODELS.register(name, (card, factory), origin)
        return factory

    return decorate


def list_models() -> list[str]:
    """Names of all models: cards (of classifiers and of their denoisers) and registered functions."""
    return sorted({*card_names("models"), *MODELS.names()})
