"""Diffusion models as used for classification: preconditioning, noise levels, weightings, losses, closed-form denoisers."""

from __future__ import annotations

from rdc_bench.diffusion.noise_levels import NoiseLevels, noise_levels
from rdc_bench.diffusion.optimal import GaussianDenoiser, OptimalDenoiser
from rdc_bench.diffusion.precondition import PRECONDITIONINGS, EDMPrecond, Precond, VEPrecond, VPPrecond
from rdc_bench.diffusion.weighting import weight

__all__ = [
    "PRECONDITIONINGS",
    "EDMPrecond",
    "GaussianDenoiser",
    "NoiseLevels",
    "OptimalDenoiser",
    "Precond",
    "VEPrecond",
    "VPPrecond",
    "noise_levels",
    "weight",
]
