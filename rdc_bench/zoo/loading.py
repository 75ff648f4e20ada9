"""From a model's name to a module that classifies: card, checked weights, network, defence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from rdc_bench.core.card_files import card_names
from rdc_bench.core.eps import parse_eps
from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion import PRECONDITIONINGS, Precond
from rdc_bench.networks import network_class
from rdc_bench.zoo.availability import require
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.consistency import check_parts
from rdc_bench.zoo.parts import check_weights, find_card, libraries, own_weights, robustbench_zoo, weights_path
from rdc_bench.zoo.registry import MODELS, Factory, list_models
from rdc_bench.zoo.schema import (
    ClassifierSpec,
    DenoiserSpec,
    DiffusionClassifierSpec,
    LibrarySpec,
    MaximizationSpec,
    ModelCard,
    RDCSpec,
    RegisteredSpec,
    RobustBenchSpec,
    is_elsewhere,
)

Resolved = LoadedCard | tuple[ModelCard, Factory]


def load_model(name: str) -> nn.Module:
    """The classifier called ``name``: images in [0, 1] (B, C, H, W) to logits (B, K), in eval mode.

    Args: a card's name, a path to a card, ``hf://owner/repo[@revision]``, ``robustbench:ID`` or
    ``robustbench:DATASET/THREAT/ID``, ``timm:NAME?checkpoint=FILE&dataset=DATASET`` (or ``torchvision:…``, see
    :class:`rdc_bench.zoo.library_name.LibraryArguments`), or the name of a registered model.
    Returns: a module with its validated card as ``.card``. Nothing is trained or executed from a card; only what ``hf://`` or
    ``robustbench:`` names is downloaded, and the card then says from where.
    Raises: ``UserError`` for an unknown name, a faulty card, weights that are missing, damaged or not those of the card.
    """
    return load_resolved(resolve(name))


def load_resolved(found: Resolved) -> nn.Module:
    """The classifier that :func:`resolve` found, see :func:`load_model`."""
    if isinstance(found, LoadedCard):
        card, module = found.card, build(classifies(found))
    else:
        card, module = found[0], found[1]()
        if not isinstance(module, nn.Module):
            raise UserError(f"model {card.name!r}: its function made a {type(module).__name__}, not a torch.nn.Module")
    module.card = card  # type: ignore[assignment]
    return module.eval().requires_grad_(False)


def resolve(name: str) -> Resolved:
    """What a model's name leads to: a card with its parts, or a registered function with the card made for it."""
    if name in MODELS.names():
        return MODELS.get(name)
    if name not in card_names("models") and not is_elsewhere(name) and not name.endswith((".yaml", ".yml")):
        hint = (
            "`rdc-bench list models` shows them all; a path to a card ends in .yaml, a repository begins with hf://, "
            "a model of RobustBench with robustbench:, a network of timm or torchvision with timm: or torchvision:."
        )
        raise unknown_name("model", name, list_models(), hint)
    return find_card(name)


def classifies(loaded: LoadedCard) -> LoadedCard:
    """The same card. Raises ``UserError`` when it is a denoiser's, does not fit its parts, or has no weights here."""
    if isinstance(loaded.card.model, DenoiserSpec):
        raise UserError(f"model {loaded.card.name!r} is a denoiser, not a classifier; use a card that classifies with it")
    return require(check_parts(loaded))


def load_denoiser(name: str) -> Precond:
    """The denoiser called ``name``, in eval mode. Raises ``UserError`` as :func:`load_model` does."""
    return _denoiser(find_card(name))


def build(loaded: LoadedCard) -> nn.Module:
    """The module that a card describes."""
    spec = loaded.card.model
    if isinstance(spec, ClassifierSpec):
        return _with_weights(lambda: network_class(spec.architecture)(**spec.config), loaded)
    if isinstance(spec, DenoiserSpec):
        return _with_weights(lambda: PRECONDITIONINGS[spec.architecture](**spec.config), loaded)
    if isinstance(spec, DiffusionClassifierSpec):
        options = spec.model_dump(exclude={"kind", "denoiser"})
        return DiffusionClassifier(_denoiser(loaded.parts[spec.denoiser]), loaded.card.num_classes, **options)
    if isinstance(spec, RDCSpec):
        maximization = _maximization(spec.likelihood_maximization, loaded)
        return RDC(maximization, load_resolved(loaded.parts[spec.classifier]))
    if isinstance(spec, RobustBenchSpec):
        module: nn.Module = robustbench_zoo().load(spec)
        return module
    if isinstance(spec, LibrarySpec):
        network: nn.Module = libraries().load(loaded)
        return network
    assert isinstance(spec, RegisteredSpec)  # of the other kinds, classifies() has said why they cannot be built
    return MODELS.get(spec.factory)[1]()


def _denoiser(loaded: LoadedCard) -> Precond:
    if not isinstance(loaded.card.model, DenoiserSpec):
        raise UserError(f"model {loaded.card.name!r} is no denoiser (its card's kind is {loaded.card.model.kind!r})")
    module = build(require(loaded))
    assert isinstance(module, Precond)
    return module.eval().requires_grad_(False)


def _maximization(spec: MaximizationSpec, loaded: LoadedCard) -> LikelihoodMaximization:
    options = spec.model_dump(exclude={"denoiser", "eta"})
    return LikelihoodMaximization(_denoiser(loaded.parts[spec.denoiser]), eta=float(parse_eps(spec.eta)), **options)


def _with_weights(make: Callable[[], nn.Module], loaded: LoadedCard) -> nn.Module:
    weights = own_weights(loaded)
    assert weights is not None
    path = weights_path(loaded, weights)
    try:
        module = make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{loaded.path}: model.config does not fit the architecture: {error}") from error
    load_weights(module, path, weights.sha256)
    return module


def load_weights(module: nn.Module, path: Path, sha256: str) -> None:
    """Load a file whose SHA-256 is known into ``module``, all keys and shapes matching.

    A safetensors file, or (``.pt``) a state dict as torch saves it, of which nothing is executed.
    """
    check_weights(path, sha256)
    try:
        module.load_state_dict(_read_state(path), strict=True)
    except RuntimeError as error:
        raise UserError(f"{path}: does not fit the network: {str(error).splitlines()[1].strip()}") from error


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".pt":
            state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
            return state
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable state dict of torch ({str(error).splitlines()[0]})") from error
