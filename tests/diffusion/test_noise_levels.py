import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion.noise_levels import GRIDS, log_normal_density, noise_levels


@pytest.mark.parametrize("grid", GRIDS)
@given(count=st.integers(1, 60))
def test_levels_are_positive_and_ordered(grid, count):
    sigma, spacing = noise_levels(grid, count, log_mean=0.3, log_std=0.8)
    assert len(sigma) == len(spacing) == count
    assert (sigma > 0).all()
    assert (spacing > 0).all()
    assert (sigma.diff() > 0).all()


@pytest.mark.parametrize("grid", ["log-normal", "gauss"])
def test_grids_integrate_the_density_they_are_made_for(grid):
    sigma, spacing = noise_levels(grid, 20, log_mean=0.3, log_std=0.5)
    density = log_normal_density(sigma, 0.3, 0.5)
    assert (density * spacing).sum().item() == pytest.approx(1.0)
    mean = (density * spacing * sigma.log()).sum().item()
    assert mean == pytest.approx(0.3, abs=1e-9)


def test_gauss_quadrature_is_exact_for_polynomials_in_log_sigma():
    sigma, spacing = noise_levels("gauss", 4, log_mean=0.0, log_std=1.0)
    weight = log_normal_density(sigma, 0.0, 1.0) * spacing
    moments = [(weight * sigma.log() ** k).sum().item() for k in range(8)]
    assert moments == pytest.approx([1, 0, 1, 0, 3, 0, 15, 0], abs=1e-8)


def test_density_is_that_of_scipy():
    from scipy.stats import lognorm

    sigma = torch.linspace(0.1, 5, 20, dtype=torch.float64)
    expected = lognorm(s=0.7, scale=math.exp(-0.4)).pdf(sigma.numpy())
    torch.testing.assert_close(log_normal_density(sigma, -0.4, 0.7), torch.from_numpy(expected))


def test_reference_grid_is_the_authors():
    sigma, spacing = noise_levels("reference", 3)
    assert sigma.tolist() == pytest.approx([1e-4, 1.00006667, 2.00003333])
    assert spacing.tolist() == pytest.approx([0.99996667] * 3)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="log-normal"):
        noise_levels("log-nromal", 4)
    with pytest.raises(UserError, match="at least one"):
        noise_levels("uniform", 0)
