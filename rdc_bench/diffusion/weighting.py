"""How much each noise level counts: the weight ``w(σ)`` of the *mean* squared error ``‖D − z‖²/d``."""

from __future__ import annotations

import torch
from torch import Tensor

from rdc_bench.core.errors import unknown_name
from rdc_bench.diffusion.loss import edm_weight
from rdc_bench.diffusion.noise_levels import log_normal_density

WEIGHTINGS = ("edm", "elbo", "simple", "reference")


def weight(
    weighting: str, sigma: Tensor, *, sigma_data: float, dimension: int, log_mean: float = 0.0, log_std: float = 1.0
) -> Tensor:
    """``w(σ)``, like ``sigma``.

    * ``edm``: ``λ(σ) p(σ)``, the training loss of EDM (Karras et al. 2022, arXiv 2206.00364, Table 1).
    * ``elbo``: ``d σ⁻³``, which makes the integral the data-dependent part of an upper bound on ``−log p(z|y)`` in nats
      (the I-MMSE relation: ``d/dσ⁻² KL = ½ mmse``, Guo, Shamai & Verdú 2005; Kingma et al. 2021, arXiv 2107.00630).
    * ``simple``: ``σ⁻² p(σ)``, weight 1 on the error of the predicted noise (Ho et al. 2020, arXiv 2006.11239, eq. 14), the RDC
      paper's choice for variance-preserving networks.
    * ``reference``: as ``edm``, with ``exp(−(ln σ + 1.2)²/2 · 1.2²)`` in place of the density, which is what the RDC
      authors' code computes (the variance multiplies where it should divide, and the normalisation by σ is dropped).

    Raises: ``UserError`` for an unknown weighting.
    """
    if weighting == "edm":
        return edm_weight(sigma, sigma_data) * log_normal_density(sigma, log_mean, log_std)
    if weighting == "elbo":
        return dimension * sigma**-3
    if weighting == "simple":
        return sigma**-2 * log_normal_density(sigma, log_mean, log_std)
    if weighting == "reference":
        return edm_weight(sigma, sigma_data) * torch.exp(-((sigma.log() + 1.2) ** 2) / 2 * 1.2**2)
    raise unknown_name("weighting", weighting, WEIGHTINGS, f"Weightings: {', '.join(WEIGHTINGS)}.")
