"""Attacks of foolbox (Rauber et al. 2020, doi 10.21105/joss.02607)."""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

from torch import Tensor, nn

from rdc_bench.attacks.adapters.library import Library, parameters
from rdc_bench.threats import LpThreat

ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}

#: What an image and its label do not suffice for (it wants starting points, other images, or a target class), and
#: PointwiseAttack, which foolbox 3.3.4 leaves without a distance.
UNUSABLE = ("BinarizationRefinementAttack", "DatasetAttack", "GenAttack", "PointwiseAttack")

#: Words in the names of attacks that use no gradient.
BLACK_BOX = ("ContrastReduction", "Noise", "Inversion", "GaussianBlur", "BoundaryAttack", "HopSkipJump")


class Foolbox(Library):
    """foolbox bounds every result by ε itself, minimum-norm attacks included."""

    name = "foolbox"
    distribution = "foolbox"
    namespace = "foolbox.attacks"
    install = "pip install 'rdc-bench[foolbox]'"
    reserved = frozenset({"distance", "constraint", "init_attack", "tensorboard"})

    def classes(self) -> dict[str, type]:
        """All attacks by class name, and the short names that foolbox gives some (``PGD``)."""
        attacks = importlib.import_module("foolbox.attacks")
        return {
            name: cls
            for name, cls in vars(attacks).items()
            if inspect.isclass(cls) and issubclass(cls, attacks.Attack) and not inspect.isabstract(cls)
        }

    def norms(self, cls: type) -> tuple[str, ...]:
        """By the distance that the class declares, or takes as an argument."""
        if cls.__name__ in UNUSABLE:
            return ()
        if "distance" in parameters(cls):
            return tuple(ORDERS)
        if "constraint" in parameters(cls):
            return "linf", "l2"
        distance = getattr(cls, "distance", None)
        if isinstance(distance, property):
            distance = cls().distance
        return tuple(kind for kind, order in ORDERS.items() if getattr(distance, "p", None) == order)

    def black_box(self, cls: type) -> bool:
        """By name; foolbox does not say."""
        return any(word in cls.__name__ for word in BLACK_BOX)

    def attack(
        self, cls: type, model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, options: dict[str, Any], seed: int
    ) -> Any:
        """The result clipped to ε."""
        foolbox = importlib.import_module("foolbox")
        takes = parameters(cls)
        if "distance" in takes:
            options = {**options, "distance": foolbox.distances.LpDistance(ORDERS[threat.kind])}
        if "constraint" in takes:
            options = {**options, "constraint": threat.kind}
        attacked = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
        _, (clipped,), _ = cls(**options)(attacked, x, y, epsilons=[threat.eps])
        return clipped
