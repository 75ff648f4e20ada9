"""What the built-in attacks and datasets are, as data: their modules import torch, and a list of names must not wait for it.

``index.json`` is written from the registries by ``python -m rdc_bench.index``. A test fails when it is out of date.
"""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdc_bench.attacks import ATTACKS, Attack
from rdc_bench.attacks.options import REFERENCE

if TYPE_CHECKING:
    from rdc_bench.data import DatasetInfo

PATH = Path(__file__).with_name("index.json")

Facts = dict[str, Any]


@functools.cache
def read() -> dict[str, list[Facts]]:
    """What :func:`make` made: facts on ``attacks`` and ``datasets``."""
    index: dict[str, list[Facts]] = json.loads(PATH.read_text(encoding="utf-8"))
    return index


def make() -> dict[str, list[Facts]]:
    """Facts on all that this package itself brings, plugins set aside. Imports every attack and dataset."""
    from rdc_bench.data import DATASETS

    built_in = [name for name in ATTACKS.names() if ATTACKS.entry(name).origin == "rdc_bench"]
    return {
        "attacks": [attack_facts(ATTACKS.get(name)) for name in built_in],
        "datasets": [dataset_facts(info) for info in DATASETS.values()],
    }


def attack_facts(attack: Attack) -> Facts:
    """An attack's declaration and documentation, as plain data; what is said of its options stands with them."""
    documentation = inspect.getdoc(attack.function) or ""
    return {
        "name": attack.name,
        "threats": list(attack.threats),
        "access": attack.gradient,
        "summary": attack.summary,
        "description": REFERENCE.sub("", documentation.partition("\n\nOptions:")[0]).strip(),
        "needs": attack.needs,
        "minimum_norm": attack.minimum_norm,
        "settings": [option._asdict() for option in attack.settings],
    }


def dataset_facts(info: DatasetInfo) -> Facts:
    """A dataset's declaration; shape and number of classes are None where they depend on the user's files."""
    return {
        "name": info.name,
        "shape": list(info.shape) if info.shape else None,
        "classes": len(info.classes) if info.classes else None,
        "summary": info.summary,
    }


def text(index: dict[str, list[Facts]]) -> str:
    """An index as it stands in the file."""
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(make()), encoding="utf-8")
