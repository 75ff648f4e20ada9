from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import generator
from rdc_bench.threats import LowFrequencyThreat, low_frequency, make_threat
from rdc_bench.threats.low_frequency import enlarge, low_pass, within


def change(shape: tuple[int, ...], eps: float) -> Tensor:
    """A change of the lowest quarter of the frequencies by scipy, of greatest magnitude eps in each image."""
    b, c, h, w = shape
    spectrum = np.zeros(shape)
    low = torch.randn(b, c, -(-h // 4), -(-w // 4), generator=generator("spectrum", *shape))
    spectrum[:, :, : low.shape[2], : low.shape[3]] = low
    made = torch.from_numpy(fft.idctn(spectrum, axes=(2, 3), norm="ortho"))
    return (eps * made / made.abs().amax(dim=(1, 2, 3), keepdim=True)).float()


def images(shape: tuple[int, ...], clipped: float) -> Tensor:
    """Images of which about a share ``clipped`` of the pixels is black or white."""
    return ((torch.rand(shape, generator=generator("x", *shape)) - 0.5) / (1 - clipped) + 0.5).clamp(0, 1)


@pytest.mark.parametrize("size", [(16, 16), (10, 13)])
def test_low_pass_and_enlarging_are_scipys(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=generator("any"), dtype=torch.float64)
    spectrum = fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    h, w = -(-size[0] // 4), -(-size[1] // 4)
    spectrum[:, :, h:], spectrum[:, :, :, w:] = 0, 0
    torch.testing.assert_close(low_pass(x), torch.from_numpy(fft.idctn(spectrum, axes=(2, 3), norm="ortho")))
    small = torch.randn(2, 3, h, w, generator=generator("small"), dtype=torch.float64)
    spectrum[:, :, :h, :w] = fft.dctn(small.numpy(), axes=(2, 3), norm="ortho") * (size[0] * size[1] / h / w) ** 0.5
    torch.testing.assert_close(enlarge(small, size), torch.from_numpy(fft.idctn(spectrum, axes=(2, 3), norm="ortho")))
    torch.testing.assert_close(enlarge(torch.ones(1, 1, h, w), size), torch.ones(1, 1, *size))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 9, 14)])
@pytest.mark.parametrize("clipped", [0, 0.3, 0.9])
@pytest.mark.parametrize("eps", [0.03, 0.3])
def test_clipped_changes_are_inside_and_other_patterns_outside(shape: tuple[int, ...], clipped: float, eps: float) -> None:
    x = images(shape, clipped)
    made = (x + change(shape, eps)).clamp(0, 1)
    threat = LowFrequencyThreat(eps)
    assert threat.contains(x, made).all()
    assert (threat.distance(x, made) <= eps + 3e-6).all()
    assert (threat.distance(x, made) >= (made - x).abs().flatten(1).amax(dim=1) - 1e-6).all()
    inside = ((x > 0.35) & (x < 0.65)).nonzero()
    place = tuple(inside[len(inside) // 2])
    beside = made.clone()
    beside[place] += 1e-4 if beside[place] < 0.5 else -1e-4
    assert not threat.contains(x, beside)[place[0]]
    noise = x + eps * torch.randn(shape, generator=generator("noise")).sign()
    assert not threat.contains(x, noise.clamp(0, 1)).any()


@pytest.mark.parametrize("clipped", [0, 0.2])
def test_too_large_changes_are_outside(clipped: float) -> None:
    shape = (2, 2, 16, 12)
    x = images(shape, clipped)
    made = (x + change(shape, 0.1)).clamp(0, 1)
    assert not LowFrequencyThreat(0.099).contains(x, made).any()
    torch.testing.assert_close(LowFrequencyThreat(0.1).distance(x, made), torch.full((2,), 0.1).double(), atol=5e-6, rtol=0)


def test_both_ways_to_decide_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 1, 12, 12)
    x = images(shape, 0.4)
    made = (x + change(shape, 0.2)).clamp(0, 1)
    made[2, 0, 5, 5] = 0.5
    solved = LowFrequencyThreat(0.2).distance(x, made)
    monkeypatch.setattr(low_frequency, "DETERMINED", 2.0)  # singular values do not exceed 1
    programmed = LowFrequencyThreat(0.2).distance(x, made)
    torch.testing.assert_close(programmed[:2], solved[:2], atol=2e-4, rtol=0)
    assert programmed.isinf().tolist() == solved.isinf().tolist() == [False, False, True]


def test_the_distance_is_of_the_smallest_change_that_explains_the_image() -> None:
    """All black, before and after: nothing need have changed. All white from black: everything by 1."""
    black = torch.zeros(1, 1, 8, 8)
    assert LowFrequencyThreat(0.1).distance(black, black).tolist() == [0]
    assert LowFrequencyThreat(1.0).distance(black, black + 1).tolist() == [1]


def test_values_that_no_image_has_are_outside() -> None:
    x = images((2, 1, 8, 8), 0)
    broken = x.clone()
    broken[0, 0, 3, 3], broken[1, 0, 3, 3] = torch.nan, 1.01
    assert not LowFrequencyThreat(1.0).contains(x, broken).any()


@pytest.mark.parametrize("clipped", [0, 0.3])
def test_projections_are_inside(clipped: float) -> None:
    x = images((2, 3, 12, 10), clipped)
    threat = LowFrequencyThreat(0.05)
    goal = torch.rand(x.shape, generator=generator("goal"))
    projected = threat.project(x, goal)
    assert threat.contains(x, projected).all()
    assert not torch.allclose(projected, x, atol=0.01)
    if not clipped:
        small = x + 0.01 * change((2, 3, 12, 10), 1.0)
        torch.testing.assert_close(threat.project(x, small), small.clamp(0, 1), atol=1e-5, rtol=0)


def test_alternating_projections_lead_to_the_nearest_change(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = torch.randn(1, 1, 8, 8, generator=generator("large"), dtype=torch.float64)
    units = np.zeros((4, 8, 8))
    units[[0, 1, 2, 3], [0, 0, 1, 1], [0, 1, 0, 1]] = 1
    patterns = fft.idctn(units, axes=(1, 2), norm="ortho").reshape(4, -1)
    solved = minimize(
        lambda q: np.square(q @ patterns - goal.numpy().ravel()).sum(),
        np.zeros(4),
        constraints=LinearConstraint(patterns.T, -0.05, 0.05),
        method="SLSQP",
        tol=1e-12,
    )
    assert within(goal, 0.05).abs().max() <= 0.05 + 1e-12
    assert (within(goal, 0.05) - goal).norm() <= 1.01 * np.sqrt(solved.fun)
    torch.testing.assert_close(within(goal, 100.0), low_pass(goal))
    monkeypatch.setattr(low_frequency, "ROUNDS", 2000)
    torch.testing.assert_close(within(goal, 0.05).flatten(), torch.from_numpy(solved.x @ patterns), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 28), (3, 65, 32)])
def test_sizes_that_it_is_not_for(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="4 × 4 to 64 × 64 pixels, not"):
        make_threat("low-frequency", None, shape)
