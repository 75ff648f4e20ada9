"""What networks a foreign checkpoint may be of, and whether its tensors are those of such a network."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.core.inert_pickle import one_line
from rdc_bench.diffusion import PRECONDITIONINGS
from rdc_bench.networks import NETWORKS, SongUNet, network_class
from rdc_bench.networks.score_sde import from_score_sde

#: What a denoiser tells its raw network by itself.
_GIVEN = ("img_resolution", "in_channels", "out_channels", "label_dim")


class NetworkSpec(NamedTuple):
    """A network by the name of its class and its arguments, which are plain data."""

    architecture: str
    config: dict[str, Any]


def network_of(spec: NetworkSpec, device: str = "meta") -> nn.Module:
    """The network that ``spec`` describes; on torch's meta device it has no memory for weights.

    Raises: ``UserError`` for a class that is not on the lists, an argument that it does not take, or a value that does not fit.
    """
    cls = _class(spec.architecture)
    allowed = _parameters(cls)
    if spec.architecture in PRECONDITIONINGS:  # the arguments that it does not know itself are those of the network inside
        inner = network_class(str(spec.config.get("model_type", allowed["model_type"].default)))
        if _is_classifier(inner):
            raise UserError(f"{inner.__name__} is a classifier; {spec.architecture} wraps a denoiser's raw network")
        allowed |= {name: value for name, value in _parameters(inner).items() if name not in _GIVEN}
    for name in spec.config:
        if name not in allowed:
            raise unknown_name("argument", name, allowed, f"{spec.architecture} takes {', '.join(allowed)}.")
    try:
        with torch.device(device):
            return cls(**spec.config)
    except Exception as error:  # whatever our own constructors make of foreign values
        raise UserError(f"the configuration does not fit {spec.architecture}: {one_line(error)}") from error


def arguments_of(spec: NetworkSpec) -> dict[str, Any]:
    """The arguments of ``spec``, those left to their defaults included."""
    return {name: value.default for name, value in _parameters(_class(spec.architecture)).items()} | spec.config


def in_our_names(state: Mapping[str, Tensor], spec: NetworkSpec) -> Mapping[str, Tensor]:
    """A state dict under the names of the network that ``spec`` describes. The only other names known are score_sde's.

    Raises: ``UserError`` when they are score_sde's and the network is not one that score_sde has, or is of another shape.
    """
    if not any(key.startswith("all_modules.") for key in state):
        return state
    # Filters follow from the arguments and are not in the checkpoint, so they need memory.
    inner = getattr(network_of(spec, device="cpu"), "model", None)
    if not isinstance(inner, SongUNet):
        raise UserError("its tensors have score_sde's names; the network is VPPrecond or VEPrecond with model_type: SongUNet")
    return {f"model.{key}": tensor for key, tensor in from_score_sde(state, inner).items()}


def check_fit(state: Mapping[str, Tensor], network: nn.Module) -> None:
    """Raise ``UserError`` unless the tensors are exactly those of the network, in name, shape and kind of number."""
    expected = network.state_dict()
    unknown, missing = sorted(state.keys() - expected.keys()), sorted(expected.keys() - state.keys())
    shapes = [key for key in sorted(state.keys() & expected.keys()) if state[key].shape != expected[key].shape]
    kinds = [
        key
        for key in sorted(state.keys() & expected.keys())
        if state[key].is_floating_point() != expected[key].is_floating_point()
    ]
    problems = []
    if unknown:
        nearest = _nearest(unknown[0], missing or expected)
        problems.append(f"{_count(unknown, 'unknown key')} {unknown[0][:200]!r}{nearest}{_next(unknown)}")
    if missing:
        problems.append(f"{_count(missing, 'missing key')} {missing[0]!r}{_nearest(missing[0], unknown)}{_next(missing)}")
    if shapes:
        sizes = [list(tensors[shapes[0]].shape) for tensors in (state, expected)]
        problems.append(
            f"{_count(shapes, 'wrong shape')} {shapes[0]!r} is {sizes[0]}, the network has {sizes[1]}{_next(shapes)}"
        )
    elif kinds:
        types = [tensors[kinds[0]].dtype for tensors in (state, expected)]
        problems.append(f"{_count(kinds, 'wrong type')} {kinds[0]!r} is {types[0]}, the network has {types[1]}")
    if problems:
        raise UserError(f"does not fit {type(network).__name__}: {'; '.join(problems)}")


def _class(architecture: str) -> type[nn.Module]:
    classifiers = {name: cls for name, cls in NETWORKS.items() if _is_classifier(cls)}
    if architecture in NETWORKS and architecture not in classifiers:
        raise UserError(f"{architecture} is a raw network; the architecture is what wraps it, e.g. EDMPrecond")
    known: dict[str, type[nn.Module]] = {**PRECONDITIONINGS, **classifiers}
    if architecture not in known:
        raise unknown_name("architecture", architecture, known, f"Known architectures: {', '.join(known)}.")
    return known[architecture]


def _is_classifier(cls: type[nn.Module]) -> bool:
    return "num_classes" in inspect.signature(cls).parameters


def _parameters(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(cls).parameters
    return {name: value for name, value in parameters.items() if value.kind is not inspect.Parameter.VAR_KEYWORD}


def _count(keys: list[str], what: str) -> str:
    return f"{what}:" if len(keys) == 1 else f"{len(keys)} {what}s, first"


def _next(keys: list[str]) -> str:
    """The second and the third of them, so that a pattern shows."""
    return f", then {', '.join(repr(key[:200]) for key in keys[1:3])}" if keys[1:] else ""


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key[:200], list(known), n=1, cutoff=0.5)
    return f" (nearest: {close[0][:200]!r})" if close else ""
