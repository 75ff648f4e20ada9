"""Cards of model variants: a bundled card with some settings changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rdc_bench.core.errors import UserError
from rdc_bench.core.files import write_atomically
from rdc_bench.reproduction.recipe import Variant
from rdc_bench.zoo.cards import find_model_card
from rdc_bench.zoo.schema import ModelCard


def write_variant(name: str, variant: Variant, folder: Path) -> Path:
    """Write the card of ``variant`` under ``name`` into ``folder``, unless it is there already; returns its path.

    Raises: ``UserError`` for a setting that the model does not have, or a value that it does not take.
    """
    card = find_model_card(variant.of).card
    document = card.model_dump(mode="json", exclude_defaults=True)
    document |= {"name": name, "title": f"{card.title}, {variant.says}"}
    for setting, value in variant.set.items():
        _set(document["model"], setting, value)
    try:
        ModelCard.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"variant {name!r}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    path = folder / f"{name}.yaml"
    content = yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def _set(document: dict[str, Any], setting: str, value: Any) -> None:
    *outer, last = setting.split(".")
    for key in outer:
        document = document.setdefault(key, {})
    document[last] = value
