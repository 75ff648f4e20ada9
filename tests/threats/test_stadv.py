from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdc_bench.core.randomness import generator
from rdc_bench.threats import StAdvThreat
from rdc_bench.threats.stadv import warp


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 1, 9, 7, generator=generator("images"))


def uniform_flow(x: Tensor, dx: float, dy: float) -> Tensor:
    return torch.tensor([dx, dy]).expand(len(x), *x.shape[2:], 2)


def test_a_flow_of_one_pixel_shifts_the_image(x: Tensor) -> None:
    torch.testing.assert_close(warp(x, uniform_flow(x, 0, 0)), x)
    right = warp(x, uniform_flow(x, 2 / 6, 0))
    torch.testing.assert_close(right[..., :-1], x[..., 1:], atol=1e-6, rtol=0)
    down = warp(x, uniform_flow(x, 0, 2 / 8))
    torch.testing.assert_close(down[..., :-1, :], x[..., 1:, :], atol=1e-6, rtol=0)


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.4, 0.7])
def test_bounds_are_those_found_by_brute_force(x: Tensor, eps: float) -> None:
    low, high = StAdvThreat(eps).bounds(x)
    offsets = torch.linspace(-eps, eps, 61).tolist()
    moved = torch.stack([warp(x, uniform_flow(x, dx, dy)) for dx in offsets for dy in offsets])
    least, greatest = moved.amin(dim=0), moved.amax(dim=0)
    assert (low <= least + 1e-5).all()
    assert (high >= greatest - 1e-5).all()
    # The grid of flows misses an extreme by at most half a cell, over which a pixel changes by no more than this.
    cell = eps / 60 * (6 + 8) / 2
    torch.testing.assert_close(low, least, atol=cell, rtol=0)
    torch.testing.assert_close(high, greatest, atol=cell, rtol=0)


def test_every_value_between_the_bounds_is_reachable(x: Tensor) -> None:
    eps = 0.3
    threat = StAdvThreat(eps)
    low, high = threat.bounds(x)
    wanted = low + torch.rand(x.shape, generator=generator("between")) * (high - low)
    assert threat.contains(x, wanted).all()
    offsets = torch.linspace(-eps, eps, 121).tolist()
    moved = torch.stack([warp(x, uniform_flow(x, dx, dy)) for dx in offsets for dy in offsets])
    # Pixels choose their flows independently, so each may take whichever flow comes nearest.
    assert ((moved - wanted).abs().amin(dim=0) < 0.02).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_random_flows_are_inside_and_their_distance_is_no_more_than_their_size(channels: int) -> None:
    x = torch.rand(4, channels, 12, 12, generator=generator(channels))
    for size in (0.02, 0.1, 0.5):
        flow = size * (2 * torch.rand(4, 12, 12, 2, generator=generator(size.hex())) - 1)
        moved = warp(x, flow).clamp(0, 1)
        threat = StAdvThreat(size)
        assert threat.contains(x, moved).all()
        assert (threat.distance(x, moved) <= size).all()
        torch.testing.assert_close(threat.project(x, moved), moved, atol=1e-5, rtol=0)


def test_distance_is_the_least_flow(x: Tensor) -> None:
    threat = StAdvThreat(0.5)
    assert (threat.distance(x, x) == 0).all()
    ramp = torch.linspace(0, 1, 9).expand(1, 1, 9, 9)
    moved = warp(ramp, uniform_flow(ramp, 0.1, 0)).clamp(0, 1)
    torch.testing.assert_close(threat.distance(ramp, moved), torch.tensor([0.1], dtype=torch.float64), atol=1e-3, rtol=0)


def test_what_no_flow_reaches_is_outside(x: Tensor) -> None:
    threat = StAdvThreat(0.05)
    flat = torch.full_like(x, 0.5)
    assert not threat.contains(flat, flat + 0.01).any()
    assert threat.distance(flat, flat + 0.01).isinf().all()
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert threat.contains(x, broken).tolist() == [False, True]


def test_projections_are_inside_and_stay_put(x: Tensor) -> None:
    threat = StAdvThreat(0.2)
    projected = threat.project(x, torch.randn(x.shape, generator=generator(1)))
    assert threat.contains(x, projected).all()
    assert torch.equal(threat.project(x, projected), projected)
