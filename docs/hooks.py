"""What the site's build adds to the pages: reference generated from the registries, and files of the repository.

A page marks a generated part by ``<!-- generated: NAME -->``; :data:`GENERATED` says what stands there. A link that leaves this
folder (a table under ``results/``, ``CONTRIBUTING.md``) works in a checkout as it stands; the site carries a copy of its target
under ``repository/``.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import click
from docstrings import as_markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from rdc_bench.attacks import ATTACKS, Attack
from rdc_bench.attacks.options import REFERENCE, Option
from rdc_bench.cli import group
from rdc_bench.data import DATASETS
from rdc_bench.evaluation.profiles import PROFILES
from rdc_bench.threats import list_threats
from rdc_bench.threats.card import ThreatCard, find_threat_card
from rdc_bench.zoo.schema import ModelCard

ROOT = Path(__file__).parents[1]
DOCS = Path(__file__).parent
#: Where the site keeps what lies outside this folder.
OUTSIDE = PurePosixPath("repository")
#: Pages that the navigation names and nothing needs to link to.
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")

_LINK = re.compile(r"(?P<before>\]\()(?P<path>[^)#\s]+)(?P<after>(#[^)\s]*)?\))")
_MARKER = re.compile(r"<!-- generated: (?P<name>[a-z-]+) -->")


def on_config(config: MkDocsConfig) -> None:
    """Make the examples in the commands' help code blocks, as mkdocs-click leaves them a paragraph."""
    _show_examples(group)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to, and those that these link to."""
    waiting = [ROOT / name for name in ALWAYS]
    for file in list(files.documentation_pages()):
        waiting += _outside(DOCS / file.src_uri)
    added: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in added:
            continue
        added.add(path)
        files.append(File.generated(config, _site_path(path), abs_src_path=str(path)))
        if path.suffix == ".md":
            waiting += _outside(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the generated parts, and lead links that leave this folder to the site's copies."""
    assert page.file.abs_src_path is not None
    source = Path(page.file.abs_src_path)
    markdown = _MARKER.sub(lambda match: GENERATED[match["name"]](), markdown)

    def relinked(match: re.Match[str]) -> str:
        target = _target(source, match["path"])
        if target is None:
            return match[0]
        here = PurePosixPath(page.file.src_uri).parent
        return f"{match['before']}{os.path.relpath(_site_path(target), here)}{match['after']}"

    return _LINK.sub(relinked, markdown)


def _outside(page: Path) -> Iterator[Path]:
    """Files outside this folder that a page links to."""
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        target = _target(page, match["path"])
        if target is not None and not target.is_relative_to(DOCS):
            yield target


def _target(page: Path, link: str) -> Path | None:
    """The file of the repository that a relative link leads to; None for addresses and for what is not there."""
    if ":" in link or link.startswith("/"):
        return None
    path = Path(os.path.normpath(page.parent / link))
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def _site_path(path: Path) -> str:
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return (OUTSIDE / path.relative_to(ROOT).as_posix()).as_posix()


def _show_examples(command: click.Command) -> None:
    if command.help:
        command.help = re.sub(
            r"\x08\nExamples?:\n(.*)",
            lambda match: f"\n```text\n{inspect.cleandoc(match[1])}\n```\n",
            inspect.cleandoc(command.help),
            flags=re.DOTALL,
        )
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            if found is not None:
                _show_examples(found)


def attacks() -> str:
    """Every registered attack: what it is, under which threats it works, and its options with their defaults."""
    return "\n\n".join(_attack(ATTACKS.get(name)) for name in _ours())


def _ours() -> list[str]:
    """Names of this package's attacks; the machine that builds the site may have plugins."""
    return [name for name in ATTACKS.names() if ATTACKS.entry(name).origin == "rdc_bench"]


def _attack(attack: Attack) -> str:
    text = REFERENCE.sub("", (inspect.getdoc(attack.function) or "").partition("\nOptions:\n")[0]).strip()
    access = "gradients" if attack.gradient == "white-box" else "logits"
    facts = f"Under {', '.join(f'`{kind}`' for kind in attack.threats)}. Uses the model's {access}."
    if attack.minimum_norm:
        facts += " Seeks the nearest adversarial image."
    parts = [f"## {attack.name}", as_markdown(text), f"*{facts}*"]
    rows = [(f"`{o.name}`", _value(o.default), _taken(o), o.help) for o in attack.settings]
    return "\n\n".join([*parts, _table(("option", "default", "takes", "what it is"), rows)] if rows else parts)


def _taken(option: Option) -> str:
    if option.type == "str" and option.allowed:  # choices
        return option.allowed
    return ", ".join(filter(None, (option.type, option.allowed)))


def threats() -> str:
    """Every threat model with a card: its size, its source, and the attacks that work under it."""
    return "\n\n".join(_threat(name) for name in list_threats())


def _threat(name: str) -> str:
    card = find_threat_card(name)
    able = [a for a in _ours() if card.kind in ATTACKS.get(a).threats]
    lines = [
        f"## {name}",
        "",
        f"{card.title[0].upper()}{card.title[1:]} ({card.paper}).",
        "",
        f"* ε: {card.unit}; `{card.default_eps}` unless `--eps` says otherwise.",
        f"* Attacks: {', '.join(f'[`{a}`](attacks.md#{a})' for a in able)}.",
        "* Models are commonly trained against it." if card.seen else "* It belongs to the set `unseen`.",
    ]
    return "\n".join(lines)


def profiles() -> str:
    """Every profile: images, repeats, and the attacks with the options that differ from their defaults."""
    parts = []
    for name, profile in PROFILES.items():
        rows = [(f"`{kind}`", "; ".join(_called(a, o) for a, o in chosen.items())) for kind, chosen in profile.attacks.items()]
        head = f"## {name}\n\n{profile.n} images, {profile.repeats} repeats: {profile.note}."
        parts.append(f"{head}\n\n{_table(('threat', 'attacks'), rows)}")
    return "\n\n".join(parts)


def _called(name: str, options: dict[str, Any]) -> str:
    given = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"[`{name}`](attacks.md#{name})" + (f" ({given})" if given else "")


def datasets() -> str:
    """Every dataset with its shape and its number of classes."""
    rows = [
        (
            f"`{info.name}`",
            " × ".join(map(str, info.shape)) if info.shape else "that of your files",
            str(len(info.classes)) if info.classes else "your folders",
            info.summary,
        )
        for info in DATASETS.values()
    ]
    return _table(("name", "shape", "classes", "what it is"), rows)


def model_cards() -> str:
    """The fields of a model's card, and of everything that may stand in it."""
    return "\n\n".join(_schema(schema) for schema in _schemas(ModelCard, []))


def threat_cards() -> str:
    """The fields of a threat's card."""
    return _schema(ThreatCard)


def _schemas(schema: type[BaseModel], seen: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """A schema and all that its fields name, each once, in the order of the fields."""
    if schema not in seen:
        seen.append(schema)
        for field in schema.model_fields.values():
            for part in _models_in(field.annotation):
                _schemas(part, seen)
    return seen


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _schema(schema: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _type(field.annotation), "required" if field.default is PydanticUndefined else _value(field.default))
        for name, field in schema.model_fields.items()
    ]
    title = getattr(schema.model_fields.get("kind"), "annotation", None)
    kinds = [f"`kind: {kind}`" for kind in getattr(title, "__args__", ())]
    heading = f"### {schema.__name__}" + (f" ({', '.join(kinds)})" if kinds else "")
    return f"{heading}\n\n{as_markdown(inspect.getdoc(schema) or '')}\n\n{_table(('field', 'type', 'default'), rows)}"


def _type(annotation: Any) -> str:
    """A type as one would say it: choices by value, schemas by name."""
    name = getattr(annotation, "__name__", str(annotation))
    parts: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if str(annotation).startswith("typing.Literal"):
        return " or ".join(f"`{part}`" for part in parts)
    if str(annotation).startswith("typing.Annotated"):
        return _type(parts[0])
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"`{name}`"
    if "Union" in type(annotation).__name__ or name in ("Union", "Optional"):
        return " or ".join(_type(part) for part in parts if part is not type(None))
    said = NAMES.get(name, name)
    inside = dict.fromkeys(_type(part) for part in parts if part is not Ellipsis)
    return f"{said} of {' to '.join(inside)}" if inside else said


#: Types in the words of YAML.
NAMES = {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "tuple": "list", "dict": "mapping"}
NAMES["Any"] = "any value"


def _value(default: Any) -> str:
    return (
        "none" if default in (None, "", [], {}, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


GENERATED: dict[str, Callable[[], str]] = {
    "attacks": attacks,
    "threats": threats,
    "profiles": profiles,
    "datasets": datasets,
    "model-cards": model_cards,
    "threat-cards": threat_cards,
}
