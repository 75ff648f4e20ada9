"""What a recipe says, and where it is found."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from rdc_bench.cards import Name, Strict, read_card
from rdc_bench.errors import UserError, unknown_name


class Variant(Strict):
    """A bundled model with some of its settings changed.

    Attributes: of: the model's card. set: setting → value, e.g. ``likelihood_maximization.steps: 1``. says: what is different.
    """

    of: Name
    set: Annotated[dict[str, Any], Field(min_length=1)]
    says: str


class Step(Strict):
    """One run: the same attacks on some models.

    Attributes: label: its column of the table, which steps with other models may share. attacks: none for those of the profile.
    """

    label: Annotated[str, Field(min_length=1, max_length=40)]
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    attacks: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)


class Recipe(Strict):
    """A table or figure.

    Attributes:
        name: of the recipe and of its folder. title: a line for the head of the table. question: what it answers.
        n, repeats: images and judging draws; ``n`` may be overruled. variants: by the name they get.
        witness: whether the profile's witnesses are called, too, in steps that name no attacks.
    """

    name: Name
    title: str
    question: str
    dataset: Name
    threat: Name
    eps: str
    profile: str = "standard"
    n: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=1)]
    seed: int = 0
    witness: bool = True
    variants: dict[Name, Variant] = Field(default_factory=dict)
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_figure_a_cell(self) -> Recipe:
        cells = [(step.label, model) for step in self.steps for model in step.models]
        twice = sorted({cell for cell in cells if cells.count(cell) > 1})
        if twice:
            raise ValueError(f"two steps called {twice[0][0]!r} attack {twice[0][1]!r}")
        unused = set(self.variants) - {model for step in self.steps for model in step.models}
        if unused:
            raise ValueError(f"variant {sorted(unused)[0]!r} is in no step")
        return self


def list_recipes() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``, or in the file ``name`` (a path that ends in ``.yaml``). Raises ``UserError``."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"recipe {path}: no such file")
    elif name in list_recipes():
        path = _folder() / f"{name}.yaml"
    else:
        raise unknown_name("recipe", name, list_recipes(), f"Recipes: {', '.join(list_recipes())}; or a path to a .yaml file.")
    return read_card(path, Recipe)


def _folder() -> Path:
    return Path(str(importlib.resources.files("rdc_bench.reproduction"))) / "recipes"
