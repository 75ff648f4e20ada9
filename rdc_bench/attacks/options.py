"""What values an option of an attack takes: types to declare it by, the check of a value, and both in words.

An attack declares its options in its signature, as ``steps: Count = 20`` or ``temperature: Annotated[float, Gt(0)] = 1.0``; any
type that pydantic knows will do. The types that several attacks share are here.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from rdc_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class NeedsClasses(NamedTuple):
    """Says in a type that the option's value ``value`` needs a model with at least ``least`` classes."""

    value: Any
    least: int


#: How often something is done, drawn or tried.
Count = Annotated[int, Ge(1)]
#: The length of a step, where 0 leaves it to the attack.
StepSize = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
#: By which share something shrinks each time.
Rate = Annotated[float, Gt(0), Lt(1)]
#: An objective of :mod:`rdc_bench.attacks.losses`; the difference of logits ratio takes the third logit.
Loss = Annotated[Literal["ce", "margin", "dlr"], NeedsClasses("dlr", 3)]

#: What is wrong with all options together under a threat and with so many classes, in words; nothing when they are right.
Check = Callable[[Mapping[str, Any], Any, int], str]

#: Names of options that count what an attack does. Where one says no more than that it is an integer, it is a :data:`Count`.
COUNTED = re.compile(
    r"(^|_)(steps|iter|iterations|restarts|repeats|query|queries|searches|trials?|tries|evals?|draws|eot|samples?|directions)(_|$)"
)

PLAIN = (bool, int, float, str)


class Option(NamedTuple):
    """An option in words. ``allowed``: its choices or range, empty when any value of the type will do."""

    name: str
    type: str
    allowed: str
    default: Any
    help: str


def least_classes(least: int) -> Check:
    """The check of an attack that needs a model with at least so many classes."""

    def check(options: Mapping[str, Any], threat: Any, num_classes: int) -> str:
        return "" if num_classes >= least else _too_few(least, num_classes)

    return check


def needed_classes(kind: Any, value: Any, num_classes: int) -> str:
    """What is wrong with an option's value on a model with so many classes, see :class:`NeedsClasses`."""
    for need in get_args(kind):
        if isinstance(need, NeedsClasses) and need.value == value and num_classes < need.least:
            return _too_few(need.least, num_classes)
    return ""


def _too_few(least: int, num_classes: int) -> str:
    return (
        f"at least {least} classes are needed, and there are {num_classes}; "
        "apgd-ce, apgd-margin, fab, square, and loss=margin or ce elsewhere, work with any number"
    )


def declared(name: str, annotation: Any, default: Any, names: Mapping[str, Any]) -> Any:
    """The type of an option: its annotation's, or else its default's.

    Args: annotation: as the signature has it; a text is looked up in ``names``, those of the module.
    """
    kind = resolved(annotation, names)
    if kind is Parameter.empty:
        kind = type(default) if type(default) in PLAIN else Any
    if kind is int and is_count(name, default):
        kind = Count
    return Optional[kind] if default is None and kind is not Any else kind  # noqa: UP045, `|` does not take every kind


def is_count(name: str, default: Any) -> bool:
    """Whether an integer option is for a number that is at least 1, judged by its name and its default."""
    return isinstance(default, int) and default >= 1 and COUNTED.search(name) is not None


def resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    """The type that an annotation stands for; ``Parameter.empty`` where there is none, or none that can be found."""
    if annotation is Parameter.empty:
        return annotation
    holder: Any = SimpleNamespace(__annotations__={"option": annotation})
    try:
        return get_type_hints(holder, dict(names), include_extras=True)["option"]
    except Exception:  # a plugin may annotate with what only type checkers import
        return Parameter.empty


def settled(attack: str, name: str, kind: Any, value: Any) -> Any:
    """The value of an option as it was given, if its type ``kind`` takes it.

    Types are strict: an integer may stand for a float, and otherwise nothing for anything else. What JSON cannot write, such as
    NaN and infinity, is no value of any option. A truth value may stand for the choice of its name, which YAML reads as one.

    Raises: ``UserError`` in one line for any other value.
    """
    from pydantic import ValidationError

    adapter = _adapter(kind)
    told = ""
    try:
        adapter.validate_json(json.dumps(value, allow_nan=False))
    except ValidationError as error:
        kinds = {e["type"] for e in error.errors()}
        told = "" if kinds & TOLD else f" ({error.errors()[0]['msg']})"
    except (TypeError, ValueError):
        pass
    else:
        return value
    schema = _schema(adapter)
    choices = _choices(schema)
    if isinstance(value, bool) and str(value).lower() in choices:
        return str(value).lower()
    if isinstance(value, str) and choices:
        raise unknown_name(f"{name} of attack {attack}", value, map(str, choices), f"One of: {', '.join(map(str, choices))}.")
    raise UserError(f"attack {attack}: {name} is {_words(schema)}, not {' '.join(reprlib.repr(value).split())}{told}")


def in_words(name: str, kind: Any, default: Any, help: str) -> Option:
    """The option as a listing shows it."""
    schema = _schema(_adapter(kind))
    return Option(name, " or ".join(_types(schema)), _allowed(schema), default, help)


def helps(documentation: str, names: Collection[str]) -> dict[str, str]:
    """What the block ``Options:`` of a docstring says of each option; ``first, second: text`` is said of both."""
    block = re.search(r"^Options:\n((?:[ \t]+\S.*\n?)+)", documentation, re.MULTILINE)
    if not block or not names:
        return {}
    text = REFERENCE.sub("", block[1])
    name = "|".join(map(re.escape, names))
    heads = list(re.finditer(rf"(?:^|(?<=[.;]))\s*((?:{name})(?:, (?:{name}))*):\s", text, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    said = {}
    for head, end in zip(heads, ends, strict=True):
        said.update(dict.fromkeys(head[1].split(", "), " ".join(text[head.end() : end].split()).rstrip(".;")))
    return said


#: The sentence by which a docstring leaves its options, or those that it does not name, to that of another attack.
REFERENCE = re.compile(r"(?:Options|The others) as for ([\w-]+)\.")

#: Errors of pydantic's that the words for a type and its range tell already.
TOLD = {
    *("bool_type", "int_type", "float_type", "string_type", "none_required", "literal_error", "finite_number"),
    *("greater_than", "greater_than_equal", "less_than", "less_than_equal", "int_parsing_size"),
}

TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}
TYPES |= {"array": "list", "object": "dict", "null": "null"}
WORDS = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "any": "a finite number, text, true or false, or a list of these",
}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter  # slow to import, and attacks are listed without it

    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


def _schema(adapter: TypeAdapter[Any]) -> list[dict[str, Any]]:
    """The alternatives of a type, in the words of JSON Schema."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema = adapter.json_schema()
    except PydanticInvalidForJsonSchema:
        schema = {}
    alternatives: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return alternatives


def _nullable(schema: list[dict[str, Any]]) -> bool:
    return any(part.get("type") == "null" for part in schema)


def _types(schema: list[dict[str, Any]]) -> list[str]:
    """Python's names of the alternatives, null last; an integer is a float as well."""
    found = dict.fromkeys(TYPES.get(part.get("type", ""), "any") for part in schema)
    if "float" in found:
        found.pop("int", None)
    return sorted(found, key=lambda name: name == "null")


def _choices(schema: list[dict[str, Any]]) -> list[Any]:
    """The values that a type names, if it names them all."""
    found = []
    for part in schema:
        if part.get("type") != "null":
            named = part.get("enum", [part["const"]] if "const" in part else [])
            if not named:
                return []
            found += named
    return found


def _allowed(schema: list[dict[str, Any]]) -> str:
    """Choices or range in words."""
    choices = [str(choice) for choice in _choices(schema)]
    if choices:
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    ranges = dict.fromkeys(_range(part) for part in schema if part.get("type") != "null")
    return " or ".join(filter(None, ranges))


def _words(schema: list[dict[str, Any]]) -> str:
    """What is right: the type with its range, or the choices."""
    kinds = "" if _choices(schema) else " or ".join(WORDS[name] for name in _types(schema) if name != "null")
    right = ", ".join(filter(None, (kinds, _allowed(schema))))
    return " or ".join(filter(None, (right, "null" if _nullable(schema) else "")))


def _range(part: dict[str, Any]) -> str:
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}
    return " and ".join(f"{text} {part[key]}" for key, text in words.items() if key in part)
