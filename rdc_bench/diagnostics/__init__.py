"""Signs that a model's gradients mislead the attacks that follow them, so that it looks more robust than it is.

One module for each sign, all with a function ``examine(subject) -> Outcome``; :data:`SIGNS` lists them. What they measure,
which limits they apply and why is written up in ``docs/explanation/diagnose.md``.
"""

from __future__ import annotations

from rdc_bench.diagnostics.run import SIGNS, Sign, diagnose

__all__ = ["SIGNS", "Sign", "diagnose"]
