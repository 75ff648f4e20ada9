import math

import pytest
import torch

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion.loss import edm_weight
from rdc_bench.diffusion.weighting import weight


def test_elbo_weight_gives_the_entropy_of_a_gaussian_in_nats():
    """For z ~ N(0, s² I) the mean denoising error is d s²σ²/(s²+σ²) at every level, and the integral

    ``∫ mmse(σ) σ⁻³ dσ`` over [a, ∞) must equal ``d/2 log(1 + s²/a²)``, the information that noise of level a leaves.
    """
    s, d, a = 0.6, 12, 0.05
    sigma = torch.logspace(math.log10(a), 4, 200_001, dtype=torch.float64)
    mean_squared_error = s**2 * sigma**2 / (s**2 + sigma**2)
    integrand = weight("elbo", sigma, sigma_data=0.5, dimension=d) * mean_squared_error
    value = torch.trapezoid(integrand, sigma).item()
    assert value == pytest.approx(d / 2 * math.log(1 + s**2 / a**2), rel=1e-4)


def test_edm_weight_makes_the_loss_of_the_skip_connection_one():
    """The denoiser ``c_skip z_σ`` is optimal for Gaussian data of deviation σ_d; its weighted error is then 1."""
    sigma = torch.tensor([0.01, 0.5, 3.0, 50.0], dtype=torch.float64)
    error = 0.5**2 * sigma**2 / (0.5**2 + sigma**2)
    torch.testing.assert_close(edm_weight(sigma, 0.5) * error, torch.ones(4, dtype=torch.float64))


def test_reference_keeps_the_slip_of_the_authors():
    sigma = torch.tensor([0.4], dtype=torch.float64)
    slip = math.exp(-((math.log(0.4) + 1.2) ** 2) / 2 * 1.2**2)
    expected = (0.4**2 + 0.5**2) / (0.4 * 0.5) ** 2 * slip
    assert weight("reference", sigma, sigma_data=0.5, dimension=1).item() == pytest.approx(expected)


def test_unknown_weighting_is_named():
    with pytest.raises(UserError, match="elbo"):
        weight("elbow", torch.ones(1), sigma_data=0.5, dimension=1)
