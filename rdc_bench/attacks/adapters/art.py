"""Attacks of ART, the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv 1807.01069)."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rdc_bench.attacks.adapters.library import Library, parameters
from rdc_bench.threats import LpThreat

ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}

#: The balls of attacks that take no ``norm``, and those for which ``norm`` does not say all. ART has many attacks of other
#: kinds (patches, sound, malware; on probabilities instead of logits), which are not among them.
NORMS: dict[str, tuple[str, ...]] = {
    "BasicIterativeMethod": ("linf",),
    "BoundaryAttack": ("l2",),
    "CarliniL2Method": ("l2",),
    "CarliniLInfMethod": ("linf",),
    "DeepFool": ("l2",),
    "ElasticNet": ("l1",),
    "HopSkipJump": ("linf", "l2"),
    "LowProFool": (),
    "NewtonFool": ("l2",),
    "SignOPTAttack": ("l2",),
    "TargetedUniversalPerturbation": (),
    "UniversalPerturbation": (),
    "Wasserstein": (),
    "ZooAttack": ("l2",),
}


class Art(Library):
    """ART works on NumPy arrays, through an estimator around the model."""

    name = "art"
    distribution = "adversarial-robustness-toolbox"
    namespace = "art.attacks.evasion"
    install = "pip install 'rdc-bench[art]'"
    reserved = frozenset(
        {"classifier", "estimator", "estimator_orig", "norm", "eps", "targeted", "batch_size", "verbose", "summary_writer"}
    )

    def classes(self) -> dict[str, type]:
        """All evasion attacks by class name, those for TensorFlow left out."""
        evasion = importlib.import_module("art.attacks.evasion")
        base = importlib.import_module("art.attacks").EvasionAttack
        return {
            name: cls
            for name, cls in vars(evasion).items()
            if inspect.isclass(cls) and issubclass(cls, base) and "TensorFlow" not in name
        }

    def norms(self, cls: type) -> tuple[str, ...]:
        """From the table, or all for an attack that takes the norm as an argument."""
        return NORMS.get(cls.__name__, tuple(ORDERS) if "norm" in parameters(cls) else ())

    def black_box(self, cls: type) -> bool:
        """By what the attack requires of its estimator."""
        required = {getattr(mixin, "__name__", "") for mixin in cls._estimator_requirements}  # type: ignore[attr-defined]
        # AutoAttack declares no gradients of its own; the attacks that it runs use them.
        return cls.__name__ != "AutoAttack" and not required & {"LossGradientsMixin", "ClassGradientsMixin"}

    def attack(
        self, cls: type, model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, options: dict[str, Any], seed: int
    ) -> Any:
        """The result, back from NumPy."""
        classification = importlib.import_module("art.estimators.classification")
        with torch.no_grad():
            num_classes = model(x).shape[1]
        estimator = classification.PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=num_classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )
        takes = parameters(cls)
        decided = {"norm": ORDERS[threat.kind], "eps": threat.eps, "targeted": False, "verbose": False}
        attack = cls(estimator, **options, **{name: value for name, value in decided.items() if name in takes})
        with _seeded_random_states():
            return torch.from_numpy(attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy()))


class _SeededRandomState(np.random.RandomState):
    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**31) if seed is None else seed)


@contextlib.contextmanager
def _seeded_random_states() -> Iterator[None]:
    """Seed from NumPy's global generator what decision-based attacks would seed from the system's entropy."""
    unseeded = np.random.RandomState
    np.random.RandomState = _SeededRandomState  # type: ignore[misc]
    try:
        yield
    finally:
        np.random.RandomState = unseeded  # type: ignore[misc]
