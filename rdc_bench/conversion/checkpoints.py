"""What a foreign checkpoint says: a network's tensors by name and, in an EDM pickle, how the network was made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from rdc_bench.conversion.architecture import NetworkSpec
from rdc_bench.conversion.unpickle import StoredModuleDict, StoredObject, StoredTensor, build, read_pickled
from rdc_bench.core.errors import UserError, unknown_name
from rdc_bench.core.inert_pickle import one_line
from rdc_bench.diffusion import PRECONDITIONINGS

#: Where checkpoints keep the network among other things, the most wanted first: the weights' average, then the weights.
_PLACES = ("ema", "state_dict", "model", "net")
#: NVlabs' first parameters, in order, common to all their preconditionings.
_POSITIONAL = ("img_resolution", "img_channels", "label_dim", "use_fp16")
#: Far beyond any network and any configuration: what is larger refers to itself.
_MOST_PARTS, _LONGEST_KEY, _DEEPEST_VALUE = 50_000, 1_000, 8


class Checkpoint(NamedTuple):
    """A network's tensors by their key in its state dict, and what network it is, if the file says so."""

    state: dict[str, Tensor]
    network: NetworkSpec | None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an EDM ``.pkl``, a ``.pt`` or ``.pth`` state dict (also inside a dict, as ``state_dict``, …), or ``.safetensors``.

    Nothing in the file is executed. Raises: ``UserError`` when it is none of these, is damaged, or asks for anything else.
    """
    if _is_safetensors(path):
        try:
            return Checkpoint(safetensors.torch.load_file(path), None)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a readable safetensors file ({one_line(error)})") from error
    loaded = read_pickled(path)
    try:
        found = _find(loaded)
        if isinstance(found, StoredObject):
            network = _described(found)
            return Checkpoint({key: build(tensor) for key, tensor in _tensors(found).items()}, network)
        state = {key: build(tensor) for key, tensor in found.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    # DataParallel puts its own name before every key.
    wrapped = all(key.startswith("module.") for key in state)
    return Checkpoint({key.removeprefix("module.") if wrapped else key: tensor for key, tensor in state.items()}, None)


def _is_safetensors(path: Path) -> bool:
    """By its content where there is any to tell, because a pickle by another name is still a pickle."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return start[8:] == b"{" or (path.suffix == ".safetensors" and start[:1] != b"\x80" and start[:2] != b"PK")


def _find(loaded: Any) -> StoredObject | dict[str, StoredTensor]:
    """The network or the state dict in what was read."""
    for candidate in (loaded, *(loaded[place] for place in _PLACES if isinstance(loaded, dict) and place in loaded)):
        if isinstance(candidate, StoredObject):
            return candidate
        if isinstance(candidate, dict) and candidate and all(isinstance(value, StoredTensor) for value in candidate.values()):
            if not all(isinstance(key, str) for key in candidate):
                raise UserError("not a state dict: a tensor's key is not text")
            return candidate
    keys = [repr(key[:40]) for key in loaded if isinstance(key, str)][:5] if isinstance(loaded, dict) else []
    holds = f"{type(loaded).__name__} of {', '.join(keys)}" if keys else type(loaded).__name__
    raise UserError(f"holds a {holds}; what is looked for is a dict of tensors, alone or as {', '.join(map(repr, _PLACES))}")


def _tensors(network: StoredObject) -> dict[str, StoredTensor]:
    """Parameters and persistent buffers of a network and the modules inside it, by the keys of a state dict."""
    found: dict[str, StoredTensor] = {}
    waiting: list[tuple[StoredObject | StoredModuleDict, str]] = [(network, "")]
    visited = 0
    while waiting:
        module, prefix = waiting.pop()
        visited += 1
        if visited + len(found) > _MOST_PARTS or len(prefix) > _LONGEST_KEY:
            raise UserError("its modules are nested without end")
        temporary = _attributes(module).get("_non_persistent_buffers_set") or ()
        for name, tensor in (_part(module, "_parameters") | _part(module, "_buffers")).items():
            if tensor is None or name in temporary:
                continue
            if not isinstance(tensor, StoredTensor):
                raise UserError(f"holds a {type(tensor).__name__} where a tensor belongs, at {prefix + name[:100]!r}")
            found[prefix + name] = tensor
        for name, inner in _part(module, "_modules").items():
            if inner is None:
                continue
            if not isinstance(inner, StoredObject | StoredModuleDict):
                raise UserError(f"holds a {type(inner).__name__} where a module belongs, at {prefix + name[:100]!r}")
            waiting.append((inner, f"{prefix}{name}."))
    return found


def _described(network: StoredObject) -> NetworkSpec:
    """Which network it is, from its class's name and from the arguments that ``torch_utils.persistence`` recorded."""
    if network.kind not in PRECONDITIONINGS:
        raise unknown_name(
            "architecture", network.kind[:100], PRECONDITIONINGS, f"Known architectures: {', '.join(PRECONDITIONINGS)}."
        )
    attributes = _attributes(network)
    positional, named = attributes.get("_init_args"), attributes.get("_init_kwargs")
    inner = _part(network, "_modules").get("model")
    if not isinstance(positional, tuple) or not isinstance(named, dict) or not isinstance(inner, StoredObject):
        raise UserError("its network does not say what arguments it was made with")
    if len(positional) > len(_POSITIONAL):
        raise UserError(f"its network was made with {len(positional)} unnamed arguments; {len(_POSITIONAL)} are known")
    config = dict(zip(_POSITIONAL, positional, strict=False)) | named | {"model_type": inner.kind}
    if config.get("sigma_max") == math.inf:
        del config["sigma_max"]  # the default, for which JSON has no number
    return NetworkSpec(network.kind, {str(name): plain(value) for name, value in config.items()})


def plain(value: Any, above: int = 0) -> Any:
    """A value of a configuration, as JSON knows it. Raises ``UserError`` for what is no finite number, text, list or dict."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if above < _DEEPEST_VALUE and isinstance(value, list | tuple):
        return [plain(item, above + 1) for item in value]
    if above < _DEEPEST_VALUE and isinstance(value, dict):
        return {str(key): plain(item, above + 1) for key, item in value.items()}
    raise UserError(f"an argument of the network is a {type(value).__name__}; numbers, text and lists are known")


def _attributes(module: StoredObject | StoredModuleDict) -> dict[str, Any]:
    attributes = getattr(module, "state", None)  # a module dict that was never given any has none
    if not isinstance(attributes, dict):
        raise UserError("holds a module without attributes")
    return attributes


def _part(module: StoredObject | StoredModuleDict, name: str) -> dict[str, Any]:
    """A module's dict of parameters, buffers or modules."""
    part = _attributes(module).get(name)
    if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
        raise UserError(f"holds a module whose {name} are not a dict of names")
    return part
