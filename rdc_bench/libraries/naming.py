"""From the name of a library's network to a card: images, classes, preprocessing and weights settled, nothing built."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, FiniteFloat, ValidationError

from rdc_bench.core.errors import UserError
from rdc_bench.core.files import file_sha256
from rdc_bench.data import dataset_info, dataset_of_models
from rdc_bench.hub.pull import pull_checkpoint
from rdc_bench.libraries.library import Published, find_library
from rdc_bench.zoo.cards import LoadedCard
from rdc_bench.zoo.library_name import LibraryName, parse_library_name
from rdc_bench.zoo.reference import is_reference, parse_reference
from rdc_bench.zoo.schema import ModelCard

#: How timm writes a reference to the Hub.
TIMM_SCHEME = "hf-hub:"


class Checkpoint(NamedTuple):
    """Weights that are here. ``reference``: how the name says it, with the commit. ``hub``: that, if they are of the Hub."""

    path: Path
    reference: str
    title: str
    hub: str | None = None
    config: Path | None = None


class Images(NamedTuple):
    """What the network is to classify."""

    dataset: str
    shape: tuple[int, int, int]
    num_classes: int


class PretrainedConfig(BaseModel):
    """What counts here of timm's ``pretrained_cfg``."""

    mean: tuple[FiniteFloat, ...] | None = None
    std: tuple[FiniteFloat, ...] | None = None
    interpolation: str | None = None


class TimmConfig(BaseModel):
    """What counts here of the ``config.json`` that timm writes beside weights."""

    architecture: str | None = None
    pretrained_cfg: PretrainedConfig = PretrainedConfig()


def resolve(name: str, *, download: bool = True) -> LoadedCard:
    """The card made for a library's network, which lies where its weights are.

    Args: name: see :mod:`rdc_bench.zoo.library_name`. download: fetch weights that lie on the Hub; else from the cache alone.
    Raises: ``UserError`` for a network or an argument that there is not, for weights that are not named or cannot be had, and
        when nothing says what images there are.
    """
    asked = parse_library_name(name)
    library = find_library(asked.library)
    published = library.published(asked.architecture)
    images = _images(asked)
    checkpoint = _checkpoint(asked, published, download)
    if checkpoint.config and asked.library == "timm":
        published = _published_with(checkpoint, published)
    arguments = asked.arguments.model_copy(update={"checkpoint": checkpoint.reference})
    spec = {
        "kind": asked.library,
        "architecture": published.architecture,
        **_preprocessing(asked, published, images.shape[0]),
        "weights": {"file": checkpoint.path.name, "sha256": file_sha256(checkpoint.path)},
    }
    try:
        card = ModelCard(
            schema_version=1,
            name=asked.arguments.name or _card_name(asked.library, published.architecture, checkpoint.title),
            title=f"{published.architecture} of {asked.library}, with the weights {checkpoint.title}",
            role="defense",
            dataset=images.dataset,
            image_shape=images.shape,
            num_classes=images.num_classes,
            license="unstated",
            source=f"{asked.library} {library.version}, with the weights {checkpoint.reference}",
            model=spec,  # type: ignore[arg-type]  # validated here
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"model {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return LoadedCard(
        card=card,
        path=checkpoint.path,
        sha256=hashlib.sha256(card.model_dump_json().encode()).hexdigest(),
        hub=checkpoint.hub,
        reference=str(asked._replace(arguments=arguments)),
    )


def _images(asked: LibraryName) -> Images:
    """From the dataset, and what the name says itself."""
    said = asked.arguments
    if said.dataset is None:
        raise _lacking(asked, "what it classifies", "--dataset NAME", "dataset=NAME")
    info = dataset_info(said.dataset)
    channels, height, width = info.shape or (3, None, None)
    height, width = (said.image_size, said.image_size) if said.image_size else (height, width)
    if height is None or width is None:
        raise _lacking(asked, f"the size of the images of {said.dataset}", "--model-arg image_size=N", "image_size=N")
    classes = said.num_classes or (len(info.classes) if info.classes else None)
    if classes is None:
        raise _lacking(asked, f"the number of classes of {said.dataset}", "--model-arg num_classes=K", "num_classes=K")
    return Images(dataset_of_models(said.dataset), (said.channels or channels, height, width), classes)


def _lacking(asked: LibraryName, what: str, option: str, argument: str) -> UserError:
    short = f"{asked.library}:{asked.architecture}"
    return UserError(f"model {short}: {what} is not known; add {option}, or say it in the name: '{short}?{argument}'")


def _checkpoint(asked: LibraryName, published: Published, download: bool) -> Checkpoint:
    said = asked.arguments.checkpoint
    if said is None:
        theirs = f"; the library's own are {published.weights}" if published.weights else ""
        raise UserError(
            f"model {asked.library}:{asked.architecture}: no weights are named, and random ones tell nothing; "
            f"add --model-arg checkpoint=FILE or checkpoint=hf://owner/repo{theirs}"
        )
    if said.startswith(TIMM_SCHEME):
        said = f"hf://{said.removeprefix(TIMM_SCHEME)}"
    if is_reference(said):
        pulled = pull_checkpoint(parse_reference(said), local_only=not download)
        hub = str(pulled.reference)
        return Checkpoint(pulled.weights, hub, pulled.reference.repo, hub, pulled.config)
    path = Path(said)
    if not path.is_file():
        raise UserError(f"checkpoint {said}: {'not a file' if path.exists() else 'no such file'}")
    return Checkpoint(path, said, path.stem)


def _published_with(checkpoint: Checkpoint, published: Published) -> Published:
    """What timm's ``config.json`` beside the weights says, as far as it says anything; it is about these weights."""
    assert checkpoint.config is not None
    try:
        config = TimmConfig.model_validate_json(checkpoint.config.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{checkpoint.hub}: its config.json is not timm's ({where or 'file'}: {first['msg']})") from error
    if config.architecture not in (None, published.architecture):
        raise UserError(
            f"{checkpoint.hub}: its weights are those of timm:{config.architecture}, not timm:{published.architecture}"
        )
    return published._replace(**config.pretrained_cfg.model_dump(exclude_none=True))


def _preprocessing(asked: LibraryName, published: Published, channels: int) -> dict[str, Any]:
    """The preprocessing of the network's specification: what the name says, else the library's own."""
    said = asked.arguments
    found: dict[str, Any] = {}
    for field, theirs in (("mean", published.mean), ("std", published.std)):
        values: tuple[float, ...] = getattr(said, field) or theirs
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise UserError(
                f"model {asked.library}:{asked.architecture}: {len(values) or 'no'} values of {field} for images of "
                f"{channels} channel{'s' if channels > 1 else ''}; add --model-arg {field}={','.join(['0.5'] * channels)} "
                "(what the network was trained with)"
            )
        found[field] = values
    if said.interpolation and not said.resize:
        raise UserError("model argument interpolation: nothing is resized; add resize=N, or leave it out")
    if said.resize:
        interpolation = said.interpolation or published.interpolation
        if interpolation not in ("bilinear", "bicubic"):
            raise UserError(
                f"model {asked.library}:{asked.architecture}: was made to resize by {interpolation or 'nothing known'}, "
                "which has no gradient here; add --model-arg interpolation=bicubic or bilinear"
            )
        found |= {"resize": said.resize, "interpolation": interpolation}
    return found


def _card_name(library: str, architecture: str, title: str) -> str:
    """Like ``timm-resnet18-my-weights``: networks of one kind with other weights have other names."""
    text = f"{library}-{title if architecture in title else f'{architecture}-{title}'}".lower()
    return re.sub(r"[^a-z0-9._-]+", "-", text)[:100]
