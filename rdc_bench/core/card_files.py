"""The YAML files of cards: how a bare name leads to one, and how one is read.

A bare name means a card: ``FOLDER/NAME.yaml`` (or ``FOLDER/NAME/NAME.yaml``) under the working directory first, then the
packaged ones. A path ends in ``.yaml``. Cards are data: nothing in them is executed.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rdc_bench.core.errors import UserError, unknown_name

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
Name = Annotated[str, Field(pattern=rf"^{NAME.pattern}$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: libyaml reads a card ten times as fast as pure Python does, but PyYAML can be built without it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_card_name(name: str) -> None:
    """Raise ``UserError`` for what cannot be a card's name, before work is done whose result it would name."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a card's name, which has a-z, 0-9, '.', '_' and '-' only; choose a --name")


class Strict(BaseModel):
    """Unknown fields are errors, and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


C = TypeVar("C", bound=Strict)


def packaged(folder: str) -> Path:
    """Where ``models`` or ``threat_models`` lie: inside an installed wheel, or at the top of a checkout."""
    installed = Path(__file__).parents[1] / "_cards" / folder
    return installed if installed.is_dir() else Path(__file__).parents[2] / folder


def card_names(folder: str) -> dict[str, Path]:
    """Names and files of all cards that a bare name can lead to; the working directory's hide the packaged ones.

    A card may lie in a folder of its own (``models/NAME/NAME.yaml``), as converted weights do.
    """
    found: dict[str, Path] = {}
    for place in _places(folder):
        found |= {path.stem: path for path in sorted(place.glob("*/*.yaml")) if path.parent.name == path.stem}
        found |= {path.stem: path for path in sorted(place.glob("*.yaml"))}
    return found


def _places(folder: str) -> tuple[Path, Path]:
    """Where cards lie; the later place hides the earlier."""
    return packaged(folder), Path.cwd() / folder


def find_card_file(name: str, folder: str, kind: str) -> Path:
    """The file of the card that ``name`` (a bare name or a path to a ``.yaml`` file) leads to.

    Args: folder: ``models`` or ``threat_models``. kind: what messages call such a card.
    Raises: ``UserError`` for a name that leads nowhere, with close matches.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{kind} card {name}: no such file")
        return path
    if NAME.fullmatch(name):  # looked for by itself, which is quicker than among all
        for place in reversed(_places(folder)):
            for file in (f"{name}.yaml", f"{name}/{name}.yaml"):
                if (place / file).is_file():
                    return place / file
    names = card_names(folder)
    if name not in names:
        raise unknown_name(kind, name, names, f"`rdc-bench list {kind}s` shows them all; a path to a card ends in .yaml.")
    return names[name]


def read_card(path: Path, schema: type[C]) -> C:
    """Read and validate one card. Errors name the file, the line and the field.

    A card is parsed once; the same file with the same text gives the same object again, so nobody may change what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return _parsed(path, text, schema)


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, text: str, schema: type[C]) -> C:
    try:
        data = yaml.load(text, Loader=_Loader)
        repeated = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML ({problem})") from error
    except (ValueError, RecursionError) as error:  # an impossible date, a number of ten thousand digits, nesting without end
        raise UserError(f"{path}: not valid YAML ({error})") from error
    if repeated:  # a few lines of them can stand for more than fits into memory
        raise UserError(f"{path}: a card uses no YAML aliases (*name); write out what is repeated")
    if not isinstance(data, dict):
        raise UserError(f"{path}: a card is a mapping of fields, not {type(data).__name__}")
    try:
        card = schema.model_validate(data)
    except ValidationError as error:
        raise _explained(path, text, error) from error
    name = getattr(card, "name", path.stem)
    if name != path.stem:
        raise UserError(f"{path}: the card is called {name!r}; card and file must have the same name")
    return card


def _explained(path: Path, text: str, error: ValidationError) -> UserError:
    """The first validation error as one line with file, line number, field, and close matches for a mistyped field."""
    first = error.errors()[0]
    # pydantic inserts the tag of a union member into the location; only keys of the file are meant here.
    field = [str(part) for part in first["loc"]]
    shown = ".".join(field)
    line = _line_of(text, field)
    if first["type"] == "extra_forbidden":
        return UserError(f"{path}:{line}: {unknown_name('field', field[-1], _fields(), 'Correct it or remove it.')}")
    return UserError(f"{path}:{line}: field {shown!r}: {first['msg']}")


def _fields() -> set[str]:
    """Every field that any card or part of a card has."""
    return {name for schema in Strict.__subclasses__() for name in schema.model_fields}


def _line_of(text: str, field: list[str]) -> int:
    """The line of the deepest part of ``field`` that appears as a key, in order."""
    line = 1
    lines = text.split("\n")
    for part in field:
        for i in range(line - 1, len(lines)):
            if re.match(rf"\s*(- )?['\"]?{re.escape(part)}['\"]?\s*:", lines[i]):
                line = i + 1
                break
    return line
