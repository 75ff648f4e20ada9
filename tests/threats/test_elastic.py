from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from rdc_bench.core.randomness import generator
from rdc_bench.threats import ElasticThreat
from rdc_bench.threats.elastic import smooth
from rdc_bench.threats.stadv import warp


@pytest.mark.parametrize("shape", [(2, 8, 10, 2), (1, 28, 28, 2)])
def test_smoothing_is_scipys(shape: tuple[int, ...]) -> None:
    flow = torch.randn(shape, generator=generator("flow"), dtype=torch.float64)
    expected = ndimage.gaussian_filter(flow.numpy(), (0, 3, 3, 0), mode="nearest", truncate=4)
    torch.testing.assert_close(smooth(flow), torch.from_numpy(expected))


@pytest.mark.parametrize("eps", [0.06, 0.4])
def test_smoothed_flows_stay_within_the_bound_and_inside(eps: float) -> None:
    x = torch.rand(3, 3, 14, 11, generator=generator("images"))
    flow = eps * torch.randn(3, 14, 11, 2, generator=generator("signs")).sign()
    flow[0] = eps  # nothing that smoothing could lessen
    smoothed = smooth(flow)
    assert (smoothed.abs() <= eps * (1 + 1e-6)).all()
    torch.testing.assert_close(smoothed[0], flow[0])
    moved = warp(x, smoothed).clamp(0, 1)
    threat = ElasticThreat(eps)
    assert threat.contains(x, moved).all()
    assert (threat.distance(x, moved) <= eps).all()
    assert not threat.contains(x, (moved + 0.3).clamp(0, 1)).any()
