"""Models and denoisers by name, where READMEs on the Hub look for them: see :mod:`rdc_bench.zoo.loading`."""

from __future__ import annotations

from rdc_bench.zoo.loading import load_denoiser, load_model

__all__ = ["load_denoiser", "load_model"]
