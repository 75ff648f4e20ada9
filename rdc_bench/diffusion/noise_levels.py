"""Which noise levels the diffusion loss is summed over, and with what spacing.

The loss of a class is an integral over σ, ``∫ w(σ) E‖D − z‖² dσ``. A grid approximates it by ``Σ_i w(σ_i) Δ_i ‖·‖²``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from rdc_bench.core.errors import UserError, unknown_name

GRIDS = ("log-normal", "gauss", "log-uniform", "uniform", "reference")


class NoiseLevels(NamedTuple):
    """Levels σ_i and spacings Δ_i (the measure dσ each level stands for), float64 tensors (T′,)."""

    sigma: Tensor
    spacing: Tensor


def log_normal_density(sigma: Tensor, log_mean: float, log_std: float) -> Tensor:
    """Density of σ when ``ln σ ~ N(log_mean, log_std²)``: the training distribution of EDM (Karras et al. 2022, Table 1)."""
    exponent = -((sigma.log() - log_mean) ** 2) / (2 * log_std**2)
    return exponent.exp() / (sigma * log_std * math.sqrt(2 * math.pi))


def noise_levels(grid: str, count: int, *, log_mean: float = 0.0, log_std: float = 1.0) -> NoiseLevels:
    """``count`` levels placed by ``grid``.

    * ``log-normal``: the centres of ``count`` strata of equal probability under ``ln σ ~ N(log_mean, log_std²)``; the spacing
      is ``1/(count p(σ))``, so that a weight containing ``p`` becomes an even average.
    * ``gauss``: Gauss–Hermite quadrature for the same density, exact for polynomials in ln σ up to degree 2·count − 1.
    * ``log-uniform``: evenly spaced in ln σ over ``log_mean ± 2 log_std``.
    * ``uniform``: midpoints of an even partition of [0, 3], the range the RDC paper uses.
    * ``reference``: ``linspace(1e-4, 3, count + 1)`` without its end, as in the RDC authors' code.

    Raises: ``UserError`` for an unknown grid or fewer than one level.
    """
    if count < 1:
        raise UserError(f"levels = {count}: at least one noise level is needed")
    if grid == "log-normal":
        quantiles = norm.ppf((np.arange(count) + 0.5) / count)
        sigma = torch.from_numpy(np.exp(log_mean + log_std * quantiles))
        return NoiseLevels(sigma, 1 / (count * log_normal_density(sigma, log_mean, log_std)))
    if grid == "gauss":
        nodes, weights = np.polynomial.hermite_e.hermegauss(count)
        sigma = torch.from_numpy(np.exp(log_mean + log_std * nodes))
        probability = torch.from_numpy(weights / weights.sum())
        return NoiseLevels(sigma, probability / log_normal_density(sigma, log_mean, log_std))
    if grid == "log-uniform":
        step = 4 * log_std / count
        sigma = torch.exp(log_mean - 2 * log_std + step * (torch.arange(count, dtype=torch.float64) + 0.5))
        return NoiseLevels(sigma, sigma * step)
    if grid == "uniform":
        step = 3.0 / count
        return NoiseLevels(step * (torch.arange(count, dtype=torch.float64) + 0.5), torch.full((count,), step).double())
    if grid == "reference":
        sigma = torch.linspace(1e-4, 3, count + 1, dtype=torch.float64)
        return NoiseLevels(sigma[:-1], sigma.diff())
    raise unknown_name("grid", grid, GRIDS, f"Grids: {', '.join(GRIDS)}.")
