"""Where timm looks for the functions that make our models.

timm's registry takes a function together with the module that it lies in, and lists it in the module's ``__all__``. The
functions are put here by :mod:`rdc_bench.robustbench.ours`, one for each model and threat model.
"""

from __future__ import annotations

__all__: list[str] = []
