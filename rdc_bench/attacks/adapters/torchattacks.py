"""Attacks of torchattacks (Kim 2020, arXiv 2010.01950)."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.attacks.adapters.library import Library, parameters
from rdc_bench.threats import LpThreat

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

#: Attacks that use no gradient.
BLACK_BOX = ("SPSA", "Square")


class Torchattacks(Library):
    """torchattacks pins an old release of requests, so it is in no extra of this package."""

    name = "torchattacks"
    distribution = "torchattacks"
    namespace = "torchattacks"
    install = "pip install --no-deps torchattacks (it pins an old release of requests), and torchvision, scipy and tqdm"
    reserved = frozenset({"model", "eps", "max_epsilon", "norm", "n_classes", "seed", "verbose"})

    def classes(self) -> dict[str, type]:
        """All attacks by class name."""
        torchattacks = importlib.import_module("torchattacks")
        return {name: cls for name in torchattacks.__all__ if inspect.isclass(cls := getattr(torchattacks, name))}

    def norms(self, cls: type) -> tuple[str, ...]:
        """By the line of its documentation that names the distance."""
        measure = re.search(r"Distance Measure\s*:\s*(.*)", inspect.getdoc(cls) or "")
        return tuple(kind for kind, norm in NORMS.items() if measure and norm in measure[1])

    def black_box(self, cls: type) -> bool:
        """By name; torchattacks does not say."""
        return cls.__name__ in BLACK_BOX

    def attack(
        self, cls: type, model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, options: dict[str, Any], seed: int
    ) -> Any:
        """The result, which attacks without an argument for ε do not bound."""
        takes = parameters(cls)
        decided: dict[str, Any] = {"eps": threat.eps, "max_epsilon": threat.eps, "norm": NORMS[threat.kind], "seed": seed}
        if "n_classes" in takes:
            with torch.no_grad():
                decided["n_classes"] = model(x).shape[1]
        return cls(model, **options, **{name: value for name, value in decided.items() if name in takes})(x, y)
