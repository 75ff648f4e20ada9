"""Attacks of other libraries by name: ``foolbox:LinfPGD``, ``torchattacks:PGD``, ``art:ProjectedGradientDescent``.

The library is imported when such a name is first asked for. Its attack gets one image at a time, with the global generators
seeded for that image, so that the result for an image depends on no other; :mod:`~rdc_bench.attacks.adapters.isolation` keeps
it apart from the model. What it returns is projected to the threat set: attacks that seek the nearest adversarial image, or
overstep, count as far as they get within the ball.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.attacks import Attack
from rdc_bench.attacks.adapters.art import Art
from rdc_bench.attacks.adapters.foolbox import Foolbox
from rdc_bench.attacks.adapters.isolation import isolated
from rdc_bench.attacks.adapters.library import Library
from rdc_bench.attacks.adapters.torchattacks import Torchattacks
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.threats import LpThreat

LIBRARIES: dict[str, Library] = {library.name: library for library in (Foolbox(), Torchattacks(), Art())}


def adapt(name: str) -> tuple[Attack, str]:
    """The attack called ``LIBRARY:CLASS``, and the library with its version.

    Raises:
        UserError: the library is absent, has no such attack, or the attack cannot be used here.
    """
    prefix, _, wanted = name.partition(":")
    library = LIBRARIES[prefix]
    try:
        classes = library.classes()
    except ImportError as error:
        raise UserError(f"attack {name!r} needs the package {prefix} ({error}): {library.install}") from error
    if wanted not in classes:
        raise unknown_name(f"attack of {prefix}", wanted, classes, f"They are the classes of {library.namespace}.")
    cls = classes[wanted]
    norms = library.norms(cls)
    if not norms:
        raise UserError(f"attack {name!r} cannot be used here: it is no untargeted ℓp attack on the logits of one image")
    missing = library.missing(cls)
    if missing:
        raise UserError(f"attack {name!r} cannot be used here: its argument {missing[0]!r} has no default")
    gradient = "black-box" if library.black_box(cls) else "white-box"
    return Attack(name, _function(library, cls), norms, gradient), f"{prefix} {_version(library)}"


def attack_in_library(
    library: Library,
    cls: type,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    options: dict[str, Any],
    seed: int,
) -> Tensor:
    """Run one of the library's attacks, kept apart from the model, on a batch; projected images (B, C, H, W).

    Raises:
        ValueError: what came back are no images, or holds values that are not finite.
    """
    with isolated(model, x, seed) as enclosed:
        found = library.attack(cls, enclosed, x.clone(), y.clone(), threat, options, seed).detach().to(x)
    if found.shape != x.shape:
        raise ValueError(f"{library.name} returned shape {tuple(found.shape)} for images of shape {tuple(x.shape)}")
    if not found.isfinite().all():
        raise ValueError(f"{library.name} returned values that are not finite")
    return threat.project(x, found)


def _function(library: Library, cls: type) -> Any:
    """The library's attack as a function with the signature of attacks of this package."""

    def function(
        model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generator: torch.Generator, **options: Any
    ) -> Tensor:
        scaled = library.step_sizes(cls, threat.eps)
        given = {key: scaled[key] if value is None and key in scaled else value for key, value in options.items()}
        seed = int(torch.randint(2**31, (), generator=generator))
        return attack_in_library(library, cls, model, x, y, threat, given, seed)

    fixed = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options, types = library.options(cls), library.types(cls)
    takes = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=types[name])
        for name, value in options.items()
    ]
    function.__signature__ = inspect.Signature([*fixed, *takes])  # type: ignore[attr-defined]
    function.__doc__ = f"{cls.__name__} of {library.name}."
    return function


def _version(library: Library) -> str:
    try:
        return importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
