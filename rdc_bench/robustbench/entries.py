"""Where timm looks for the functions that make our models.

timm's registry takes a function together with the module that it lies in, and lists it in the module's ``__all__``. The
functions are put here by :mod:`rdc_bench.robustbench.ours`, one for each model and threat model.
"""

from __future__ import annotations

__all__: list[str] = []


def function_name(model: str, dataset: str, threat: str) -> str:
    """The name of the function that RobustBench asks timm's registry for."""
    return f"{model.lower().replace('-', '_')}_{dataset}_{threat.lower()}"
