"""rdc-bench: a robustness benchmark for diffusion classifiers.

The public names are imported when they are first used, so that ``import rdc_bench`` is quick and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdc_bench.lazy import from_modules

__version__ = "0.1.0"

_PUBLIC = {
    "UserError": "rdc_bench.errors",
    "attack": "rdc_bench.attacks",
    "diagnose": "rdc_bench.diagnostics",
    "list_attacks": "rdc_bench.attacks",
    "list_datasets": "rdc_bench.data",
    "list_models": "rdc_bench.model_registry",
    "list_threats": "rdc_bench.threats",
    "load_dataset": "rdc_bench.data",
    "load_model": "rdc_bench.loading",
    "model": "rdc_bench.model_registry",
    "report": "rdc_bench.api",
    "run": "rdc_bench.api",
    "verify": "rdc_bench.api",
}

__all__ = [
    "UserError",
    "__version__",
    "attack",
    "diagnose",
    "list_attacks",
    "list_datasets",
    "list_models",
    "list_threats",
    "load_dataset",
    "load_model",
    "model",
    "report",
    "run",
    "verify",
]

if TYPE_CHECKING:
    from rdc_bench.api import report, run, verify
    from rdc_bench.attacks import attack, list_attacks
    from rdc_bench.data import list_datasets, load_dataset
    from rdc_bench.diagnostics import diagnose
    from rdc_bench.errors import UserError
    from rdc_bench.loading import load_model
    from rdc_bench.model_registry import list_models, model
    from rdc_bench.threats import list_threats
else:  # hidden from type checkers, which would take any name
    __getattr__ = from_modules(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
