"""Our models under RobustBench's names: ``robustbench.utils.load_model("rdc-cifar10", threat_model="Linf")``.

RobustBench asks timm's registry before its own zoo, for a function named after model, dataset and threat model. Such a function
is registered for each of our models on a dataset that RobustBench has. It loads the model when it is called, with the checks
that :func:`rdc_bench.load_model` makes, and fixes its noise, as RobustBench's deterministic forward pass demands.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from timm.models import is_model, register_model
from torch import nn

from rdc_bench.cards import LoadedCard, ModelCard
from rdc_bench.defenses.fixed_noise import fixed_noise
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.loading import load_model, resolve
from rdc_bench.model_registry import list_models
from rdc_bench.robustbench import entries

DATASETS = tuple(dataset.value for dataset in BenchmarkDataset)
#: Threat models with models of their own; RobustBench looks ``corruptions_3d`` up as ``corruptions``.
THREATS = tuple(threat.value for threat in ThreatModel if threat is not ThreatModel.corruptions_3d)

#: Kinds of cards that describe a classifier of ours. RobustBench's own are there already.
KINDS = ("classifier", "diffusion-classifier", "rdc", "registered")

#: The functions given to timm, and which of our models each makes.
_models: dict[str, str] = {}


def register_models() -> list[str]:
    """Register every model on a dataset that RobustBench has. A faulty card is a warning and hides no other.

    Done when :mod:`rdc_bench.robustbench` is imported; call it again for models that came later. Names with a dot are left out,
    because timm reads what follows a dot as the name of a set of weights.

    Returns: the names registered by this call.
    """
    before = set(_models.values())
    for name in list_models():
        try:
            card = _card(name)
            if card.model.kind in KINDS and card.dataset in DATASETS and "." not in name:
                register(name)
        except UserError as error:
            warnings.warn(f"not registered with RobustBench: {error}", stacklevel=2)
    return sorted(set(_models.values()) - before)


def register(name: str, model: str | None = None) -> None:
    """Let RobustBench load one of our models as ``name``, for every threat model. Registering it again does nothing.

    Args:
        name: what ``robustbench.utils.load_model`` is given, e.g. ``"Chen2024Robust_RDC"``; letters, digits, ``-`` and ``_``.
        model: a name that :func:`rdc_bench.load_model` takes; None for ``name`` itself.
    Raises: ``UserError`` for a name that timm or RobustBench has already, an unknown model, or one on another dataset.
    """
    model = name if model is None else model
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"{name!r}: a name for RobustBench is made of letters, digits, '-' and '_'")
    dataset = _card(model).dataset
    if dataset not in DATASETS:
        raise unknown_name("RobustBench dataset", dataset, DATASETS, f"Model {model!r} cannot be registered there.")
    functions = [entries.function_name(name, dataset, threat) for threat in THREATS]
    if any(_models.get(function, model) != model or (is_model(function) and function not in _models) for function in functions):
        raise UserError(f"a model {name!r} on {dataset} is registered already; choose another name")
    for function in functions:
        if function not in _models:
            _register_function(function, model)


def _register_function(function: str, model: str) -> None:
    """Give timm a function of this name. It passes options of its own networks, which our models do not have."""

    def make(num_classes: int | None = None, **_: Any) -> nn.Module:
        made = fixed_noise(load_model(model))
        classes = _card(model).num_classes
        if num_classes not in (None, classes):
            raise UserError(f"model {model!r} tells {classes} classes apart, not {num_classes}")
        return made

    make.__name__ = make.__qualname__ = function
    make.__module__ = entries.__name__
    make.__doc__ = f"``rdc_bench.load_model({model!r})`` with its noise fixed."
    setattr(entries, function, make)
    register_model(make)
    _models[function] = model


def _card(name: str) -> ModelCard:
    found = resolve(name)
    return found.card if isinstance(found, LoadedCard) else found[0]
