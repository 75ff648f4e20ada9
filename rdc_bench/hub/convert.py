"""Foreign checkpoints made ours: safetensors, a plain configuration and a card, written all at once or not at all."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from rdc_bench.cards import (
    ClassifierSpec,
    DenoiserSpec,
    ModelCard,
    Weights,
    check_card_name,
    file_sha256,
    find_model_card,
)
from rdc_bench.data import DATASETS
from rdc_bench.diffusion import PRECONDITIONINGS
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.files import check_writable, write_folder_atomically
from rdc_bench.hub.architecture import NetworkSpec, arguments_of, check_fit, in_our_names, network_of
from rdc_bench.hub.checkpoints import plain, read_checkpoint
from rdc_bench.hub.layout import CONFIG, RepositoryConfig

WEIGHTS = "model.safetensors"


class Shape(NamedTuple):
    """What the network is, where the checkpoint itself does not say: a class and its arguments, or a card that has both."""

    architecture: str | None = None
    config_file: Path | None = None
    like: str | None = None


class Label(NamedTuple):
    """What the card says of the weights, beyond what the network says."""

    name: str
    dataset: str | None = None
    license: str = "unstated"
    source: str | None = None


class Task(NamedTuple):
    """What a network works on."""

    dataset: str
    image_shape: tuple[int, int, int]
    num_classes: int


def convert(source: Path, dest: Path, shape: Shape, label: Label) -> Path:
    """Convert a checkpoint into a folder of ``model.safetensors``, ``config.json`` and the card ``NAME.yaml``.

    Args:
        source: an EDM ``.pkl``, a ``.pt`` or ``.pth`` state dict, or ``.safetensors``; nothing in it is executed.
        dest: a folder that is new, empty, or was made by an earlier conversion, which is replaced.
    Returns: the path of the card. :func:`rdc_bench.loading.load_model` or ``load_denoiser`` takes it.
    Raises: ``UserError`` for a file that is no checkpoint or asks for anything to be executed, tensors that are not those of
        the network, and networks that are not those of the dataset; ``OSError`` where ``dest`` cannot be written. Nothing has
        been written then.
    """
    check_card_name(label.name)
    _check_destination(dest)
    like = find_model_card(shape.like).card if shape.like else None
    checkpoint = read_checkpoint(source)
    spec = _spec(source, checkpoint.network, shape, like)
    try:
        state = in_our_names(checkpoint.state, spec)
        check_fit(state, network_of(spec))
        task = _task(spec, label, like)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    weights = safetensors.torch.save(_separate(state))
    origin = {"file": source.name, "sha256": file_sha256(source)}
    digest = sha256(weights).hexdigest()
    card = _card(spec, task, label, origin, digest)
    described = {
        **RepositoryConfig(library_name="rdc-bench", schema_version=1, card=f"{label.name}.yaml").model_dump(),
        "architecture": spec.architecture,
        "config": spec.config,
        "weights": {"file": WEIGHTS, "sha256": digest},
        "converted_from": origin,
        "versions": {"rdc_bench": importlib.metadata.version("rdc_bench"), "torch": torch.__version__},
    }
    files = {
        WEIGHTS: weights,
        CONFIG: json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        f"{label.name}.yaml": yaml.safe_dump(card, sort_keys=False, allow_unicode=True).encode(),
    }
    write_folder_atomically(dest, files)
    return dest / f"{label.name}.yaml"


def _check_destination(dest: Path) -> None:
    """Raise ``UserError`` unless ``dest`` is free for the taking, ``OSError`` where it cannot be made."""
    check_writable(dest.resolve().parent)
    if not dest.exists():
        return
    if not dest.is_dir():
        raise UserError(f"{dest}: is a file; a conversion is a folder")
    names = {path.name for path in dest.iterdir()}
    if names and names != {WEIGHTS, CONFIG, _card_of(dest / CONFIG)}:
        raise UserError(f"{dest}: holds {sorted(names)[0]!r} and is no earlier conversion; choose a new or an empty folder")


def _card_of(config: Path) -> str | None:
    """The card that a conversion's ``config.json`` names; None when there is no such file or it is another's."""
    try:
        described = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return None
    return described.get("card") if isinstance(described, dict) and "converted_from" in described else None


def _spec(source: Path, network: NetworkSpec | None, shape: Shape, like: ModelCard | None) -> NetworkSpec:
    """What network it is: as the file says, or as the caller says."""
    said = [name for name, value in zip(("--architecture", "--config", "--like"), shape, strict=True) if value]
    if network is not None:
        if twice := [name for name in said if name != "--like"]:
            raise UserError(
                f"{source}: says itself that its network is {network.architecture}; leave out {' and '.join(twice)}"
            )
        return network  # a card still says the dataset
    if like is not None:
        if said != ["--like"]:
            raise UserError("--like says what the network is; leave out --architecture and --config")
        if not isinstance(like.model, ClassifierSpec | DenoiserSpec):
            raise UserError(f"--like {shape.like}: a card of weights is needed, this one is a {like.model.kind}")
        return NetworkSpec(like.model.architecture, like.model.config)
    if shape.architecture is None or shape.config_file is None:
        raise UserError(f"{source}: does not say what network it is of; give --architecture and --config, or --like")
    return NetworkSpec(shape.architecture, _read_config(shape.config_file))


def _read_config(path: Path) -> dict[str, Any]:
    """A network's arguments from a YAML or JSON file (YAML contains JSON)."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: a configuration is a mapping of the network's arguments, not {type(config).__name__}")
    try:
        return {str(name): plain(value) for name, value in config.items()}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _task(spec: NetworkSpec, label: Label, like: ModelCard | None) -> Task:
    """Dataset, image shape and number of classes, which network and dataset must agree on."""
    dataset = label.dataset or (like.dataset if like else None)
    if dataset is None:
        raise UserError("the dataset that it was trained on is not known; give --dataset")
    known = DATASETS.get(dataset)
    if known is None and (like is None or like.dataset != dataset):
        raise unknown_name("dataset", dataset, DATASETS, "`rdc-bench list datasets` shows them all.")
    arguments = arguments_of(spec)
    image_shape = (known and known.shape) or (like.image_shape if like else None)
    if spec.architecture in PRECONDITIONINGS:
        side = arguments["img_resolution"]
        channels, classes = arguments["img_channels"], arguments["label_dim"]
        image_shape = image_shape or (channels, side, side)
        if image_shape != (channels, side, side):
            raise UserError(
                f"works on images of {channels}×{side}×{side}, those of {dataset} have {'×'.join(map(str, image_shape))}"
            )
    else:
        classes = arguments["num_classes"]
    if image_shape is None:
        raise UserError(f"the shape of {dataset}'s images is not known; give --like a card that says it")
    expected = len(known.classes) if known and known.classes else like.num_classes if like else None
    if classes and expected and classes != expected:
        raise UserError(f"tells {classes} classes apart, {dataset} has {expected}")
    num_classes = classes or expected
    if num_classes is None:
        raise UserError(
            f"the network knows no classes and {dataset} does not say how many there are; give --like a card that does"
        )
    return Task(dataset, image_shape, num_classes)


def _card(spec: NetworkSpec, task: Task, label: Label, origin: Mapping[str, str], weights_sha256: str) -> dict[str, Any]:
    """The card, as plain data."""
    weights = Weights(file=WEIGHTS, sha256=weights_sha256)
    denoises = spec.architecture in PRECONDITIONINGS
    inner = f" {spec.config['model_type']}" if "model_type" in spec.config else ""
    try:
        card = ModelCard(
            schema_version=1,
            name=label.name,
            title=f"{spec.architecture}{inner}, converted from {origin['file']}",
            role="part" if denoises else "baseline",
            **task._asdict(),
            license=label.license,
            source=f"{label.source or origin['file']}; converted from {origin['file']}, SHA-256 {origin['sha256']}",
            model=(
                DenoiserSpec(kind="denoiser", architecture=spec.architecture, config=spec.config, weights=weights)  # type: ignore[arg-type]
                if denoises
                else ClassifierSpec(kind="classifier", architecture=spec.architecture, config=spec.config, weights=weights)
            ),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return card.model_dump(mode="json", exclude_defaults=True)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, none of which shares memory with another: safetensors stores each by itself."""
    separate, seen = {}, set()
    for key, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        separate[key] = tensor.clone(memory_format=torch.contiguous_format) if place in seen else tensor.contiguous()
        seen.add(place)
    return separate
