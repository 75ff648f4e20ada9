"""Names of networks that a library makes: ``timm:ARCHITECTURE?KEY=VALUE&KEY=VALUE``, and ``torchvision:`` alike.

The name says everything that leads to the model, its weights included, so that a record of it is enough to load it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from rdc_bench.core.card_files import Name
from rdc_bench.core.errors import UserError, unknown_name

LIBRARIES = ("timm", "torchvision")
#: What the name of a network can look like in either.
ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")

Numbers = Annotated[tuple[FiniteFloat, ...], BeforeValidator(lambda v: v.split(",") if isinstance(v, str) else v)]


class LibraryArguments(BaseModel):
    """What a name says besides the architecture.

    Attributes:
        checkpoint: the weights: a file (safetensors, or a state dict as torch saves it), or ``hf://owner/repo[@revision]``.
        dataset: whose images the network classifies. It settles the next three, where it has images of one shape.
        num_classes: logits of the network. image_size: height and width of the images. channels: of the images; 3 by default.
        mean, std: of the pixels in [0, 1], a number for all channels or one for each; by default those of the library's own
            weights. resize: height and width that images are brought to in front of the network; by default they stay as they
            are. interpolation: how; by default as for the library's own weights.
        name: what tables call the model; by default made of the architecture and the checkpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    dataset: str | None = None
    num_classes: Annotated[int, Field(ge=2)] | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None
    channels: Annotated[int, Field(ge=1)] | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    resize: Annotated[int, Field(ge=1)] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    name: Name | None = None


class LibraryName(NamedTuple):
    """A parsed name. ``library``: one of :data:`LIBRARIES`."""

    library: str
    architecture: str
    arguments: LibraryArguments

    def __str__(self) -> str:
        return _written(f"{self.library}:{self.architecture}", self.arguments.model_dump(exclude_none=True))


def is_library_name(name: str) -> bool:
    """Whether a name is meant as that of a library's network; whether it is a good one, :func:`parse_library_name` says."""
    library, colon, _ = name.partition(":")
    return bool(colon) and library in LIBRARIES


def parse_library_name(text: str) -> LibraryName:
    """Parse ``timm:ARCHITECTURE?KEY=VALUE&…``. Nothing is imported: whether the library has the network is not asked.

    Raises: ``UserError`` saying what is wrong, with close matches for an argument that there is not.
    """
    start, given = _taken_apart(text)
    library, _, architecture = start.partition(":")
    if not ARCHITECTURE.fullmatch(architecture):
        raise UserError(
            f"model {text!r}: write {library}:NAME, with the name of a network of {library}, e.g. {library}:resnet18"
        )
    for key in given:
        if key not in LibraryArguments.model_fields:
            known = LibraryArguments.model_fields
            raise unknown_name("model argument", key, known, f"A network of {library} takes {', '.join(known)}.")
    try:
        return LibraryName(library, architecture, LibraryArguments.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"model argument {first['loc'][0]}={given[str(first['loc'][0])]}: {first['msg']}") from error


def with_arguments(name: str, arguments: Mapping[str, Any]) -> str:
    """The name with these arguments as well; what it says itself stays."""
    start, given = _taken_apart(name)
    return _written(start, {**arguments, **given})


def _taken_apart(text: str) -> tuple[str, dict[str, str]]:
    start, question, rest = text.partition("?")
    given: dict[str, str] = {}
    for part in rest.split("&") if question else ():
        key, equals, value = part.partition("=")
        if not key or not equals:
            raise UserError(f"model {text!r}: after '?' come arguments as KEY=VALUE, with '&' between them")
        if key in given:
            raise UserError(f"model {text!r}: {key} is given twice")
        given[key] = unquote(value)
    return start, given


def _written(start: str, arguments: Mapping[str, Any]) -> str:
    return start + "".join(f"{'&' if n else '?'}{key}={_text(value)}" for n, (key, value) in enumerate(arguments.items()))


def _text(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("%", "%25").replace("&", "%26")
