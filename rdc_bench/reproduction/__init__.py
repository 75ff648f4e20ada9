"""Recipes: the runs behind a published table or figure, carried out again by one command.

A recipe (``recipes/NAME.yaml``) names models, variants of models, and the attacks to run on them. Everything it does goes
through :func:`rdc_bench.run`, so a recipe that was interrupted goes on, and each of its runs can be verified by itself.
What carries recipes out (:mod:`rdc_bench.reproduction.reproduce`) is imported by itself: which there are is said without torch.
"""

from __future__ import annotations

from rdc_bench.reproduction.recipe import Recipe, find_recipe, list_recipes

__all__ = ["Recipe", "find_recipe", "list_recipes"]
