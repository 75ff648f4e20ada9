"""From a model's name to a module that classifies: card, checked weights, network, defence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from rdc_bench.cards import (
    ClassifierSpec,
    DenoiserSpec,
    DiffusionClassifierSpec,
    LoadedCard,
    MaximizationSpec,
    ModelCard,
    RDCSpec,
    RegisteredSpec,
    Weights,
    card_names,
    file_sha256,
    find_model_card,
)
from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion import EDMPrecond
from rdc_bench.eps import parse_eps
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.networks import network_class
from rdc_bench.registry import Registry, origin_of

Factory = Callable[[], nn.Module]
M = TypeVar("M", bound=nn.Module)
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


def load_model(name: str) -> nn.Module:
    """The classifier called ``name``: images in [0, 1] (B, C, H, W) to logits (B, K), in eval mode.

    Args: a card's name, a path to a card, or the name of a registered model.
    Returns: a module with its validated card as ``.card``. Nothing is trained, downloaded or executed from a card.
    Raises: ``UserError`` for an unknown name, a faulty card, weights that are missing, damaged or not those of the card.
    """
    found = resolve(name)
    if isinstance(found, tuple):
        card, factory = found
        module = factory()
    else:
        card, loaded = found.card, found
        if isinstance(card.model, DenoiserSpec):
            raise UserError(f"model {name!r} is a denoiser, not a classifier; use a card that classifies with it")
        module = build(loaded)
    module.card = card  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def resolve(name: str) -> LoadedCard | tuple[ModelCard, Factory]:
    """What a model's name leads to: a card's file, or a registered function with the card made for it."""
    if name in MODELS.names():
        return MODELS.get(name)
    if name not in card_names("models") and not name.endswith((".yaml", ".yml")):
        hint = "`rdc-bench list models` shows them all; a path to a card ends in .yaml."
        raise unknown_name("model", name, list_models(), hint)
    return find_model_card(name)


def load_denoiser(name: str) -> EDMPrecond:
    """The denoiser called ``name``, in eval mode. Raises ``UserError`` as :func:`load_model` does."""
    loaded = find_model_card(name)
    if not isinstance(loaded.card.model, DenoiserSpec):
        raise UserError(f"model {name!r} is no denoiser (its card's kind is {loaded.card.model.kind!r})")
    module = build(loaded)
    assert isinstance(module, EDMPrecond)
    return module.eval().requires_grad_(False)


def build(loaded: LoadedCard) -> nn.Module:
    """The module that a card describes."""
    spec = loaded.card.model
    if isinstance(spec, ClassifierSpec):
        return _with_weights(lambda: network_class(spec.architecture)(**spec.config), spec.weights, loaded)
    if isinstance(spec, DenoiserSpec):
        return _with_weights(lambda: EDMPrecond(**spec.config), spec.weights, loaded)
    if isinstance(spec, DiffusionClassifierSpec):
        options = spec.model_dump(exclude={"kind", "denoiser"})
        return DiffusionClassifier(load_denoiser(spec.denoiser), loaded.card.num_classes, **options)
    if isinstance(spec, RDCSpec):
        return RDC(_maximization(spec.likelihood_maximization), load_model(spec.classifier))
    return MODELS.get(spec.factory)[1]()


def weight_files(loaded: LoadedCard) -> dict[str, str]:
    """SHA-256 of every weights file that a model uses, its parts' included, keyed by file name."""
    spec = loaded.card.model
    if isinstance(spec, ClassifierSpec | DenoiserSpec):
        return {spec.weights.file: spec.weights.sha256}
    if isinstance(spec, DiffusionClassifierSpec):
        return weight_files(find_model_card(spec.denoiser))
    if isinstance(spec, RDCSpec):
        parts = (spec.likelihood_maximization.denoiser, spec.classifier)
        return {name: sha for part in parts for name, sha in weight_files(find_model_card(part)).items()}
    return {}


def missing_parts(loaded: LoadedCard) -> list[str]:
    """What a model lacks to be loaded here: cards and weights files that are not there."""
    spec = loaded.card.model
    if isinstance(spec, ClassifierSpec | DenoiserSpec):
        path = loaded.path.parent / spec.weights.file
        return [] if path.is_file() else [str(path)]
    if isinstance(spec, DiffusionClassifierSpec):
        return missing_parts(find_model_card(spec.denoiser))
    if isinstance(spec, RDCSpec):
        parts = (spec.likelihood_maximization.denoiser, spec.classifier)
        return [missing for part in parts for missing in missing_parts(find_model_card(part))]
    return []


def _maximization(spec: MaximizationSpec) -> LikelihoodMaximization:
    options = spec.model_dump(exclude={"denoiser", "eta"})
    return LikelihoodMaximization(load_denoiser(spec.denoiser), eta=float(parse_eps(spec.eta)), **options)


def _with_weights(make: Callable[[], nn.Module], weights: Weights, loaded: LoadedCard) -> nn.Module:
    path = loaded.path.parent / weights.file
    try:
        module = make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{loaded.path}: model.config does not fit the architecture: {error}") from error
    load_weights(module, path, weights.sha256)
    return channels_last(module)


def channels_last(module: M) -> M:
    """The same module with its convolutions' weights in the layout that is fastest on CPUs and GPUs alike."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_weights(module: nn.Module, path: Path, sha256: str) -> None:
    """Load a safetensors file whose SHA-256 is known into ``module``, all keys and shapes matching."""
    if not path.is_file():
        raise UserError(f"{path}: the weights are missing")
    if file_sha256(path) != sha256:
        raise UserError(
            f"{path}: SHA-256 differs from the card's; the file is damaged or another one ({path.stat().st_size} bytes)"
        )
    try:
        module.load_state_dict(safetensors.torch.load_file(path), strict=True)
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error
    except RuntimeError as error:
        raise UserError(f"{path}: does not fit the network: {str(error).splitlines()[1].strip()}") from error
