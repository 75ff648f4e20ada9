from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rdc_bench.core.randomness import generator
from rdc_bench.threats import JpegThreat
from rdc_bench.threats.jpeg import CHROMINANCE, LUMINANCE, change_of, coefficients

GREY = 128 / 255


def photograph(channels: int, h: int, w: int) -> Tensor:
    """Something smooth with a little texture, in whole grey levels, (1, C, H, W)."""
    g = generator("photograph")
    coarse = F.interpolate(torch.rand(1, channels, 4, 4, generator=g), (h, w), mode="bicubic").clamp(0.1, 0.9)
    return ((coarse + 0.05 * torch.randn(1, channels, h, w, generator=g)).clamp(0.05, 0.95) * 255).round() / 255


@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_keeps_an_image_made_of_whole_coefficients(channels: int) -> None:
    g = generator("whole", channels)
    sparse = torch.rand(1, channels, 24, 16, generator=g) < (0.1 if channels == 1 else 0.03)
    most = 2 if channels == 1 else 1  # colours leave the range early
    wanted = torch.randint(-most, most + 1, sparse.shape, generator=g) * sparse.float()
    x = GREY + change_of(wanted, (24, 16))
    assert 0 < x.min() < 0.3
    assert 0.7 < x.max() < 1
    pixels = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "JPEG", quality=50, subsampling=0)
    with Image.open(file) as image:
        assert image.quantization[0] == list(np.ravel(LUMINANCE))
        if channels == 3:
            assert image.quantization[1] == list(np.ravel(CHROMINANCE))
        decoded = torch.from_numpy(np.array(image)).view(24, 16, channels).permute(2, 0, 1)[None] / 255
    # The encoder's and the decoder's integers cost 1 grey level, 2 after the colour transform.
    assert (x - decoded).abs().max() * 255 < (1.01 if channels == 1 else 2.01)
    assert torch.equal(coefficients(decoded - GREY).round(), wanted)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 16, 24), (1, 2, 11, 13)])
def test_the_transform_and_its_inverse(shape: tuple[int, ...]) -> None:
    change = torch.randn(shape, generator=generator(0), dtype=torch.float64)
    found = coefficients(change)
    assert found.shape[2] % 8 == found.shape[3] % 8 == 0
    torch.testing.assert_close(change_of(found, shape[2:]), change)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (1, 3, 8, 11)])
def test_changes_within_the_bound_are_inside_though_clipped(norm: Any, shape: tuple[int, ...]) -> None:
    x = (1.6 * torch.rand(shape, generator=generator(1)) - 0.3).clamp(0, 1)
    threat = JpegThreat(norm, 0.5)
    for seed in range(3):
        size = coefficients(x).shape
        corner = threat.ball.steepest(torch.randn(size, generator=generator(seed)), torch.zeros(size))
        moved = (x + change_of(0.5 * corner, shape[2:])).clamp(0, 1)
        assert (moved == 0).any()
        assert (moved == 1).any()
        assert threat.contains(x, moved).all()
        assert (threat.distance(x, moved) <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_away_from_the_ends_of_the_range_the_distance_is_the_norm(norm: Any) -> None:
    x = photograph(3, 16, 16)
    wanted = torch.randn(coefficients(x).shape, generator=generator(2)) / 100
    moved = x + change_of(wanted, (16, 16))
    expected = wanted.abs().max() if norm == "linf" else wanted.norm()
    found = JpegThreat(norm, 1).distance(x, moved)
    torch.testing.assert_close(found, expected.double()[None], atol=1e-5, rtol=1e-4)
    assert not JpegThreat(norm, 0.98 * float(expected)).contains(x, moved).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_distance_through_clipping_is_the_least_that_a_search_finds(norm: Any) -> None:
    x = torch.full((1, 1, 8, 8), 0.5)
    x[..., :2, :2] = 0.0
    goal = x.clone()
    goal[0, 0, 4, 4] = 0.6
    found = float(JpegThreat(norm, 1).distance(x, goal))
    # Only the four black pixels may have gone further down. Descend on how far, with a smooth stand-in for the maximum.
    hidden = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([hidden], lr=3e-3)
    least = math.inf
    for _ in range(400):
        change = (goal - x).double()
        change = change - F.pad(hidden.abs(), (0, 6, 0, 6))
        values = coefficients(change).abs()
        least = min(least, (values.max() if norm == "linf" else values.norm()).item())
        optimizer.zero_grad()
        values.norm(p=30 if norm == "linf" else 2).backward()
        optimizer.step()
    assert found <= least + 1e-6
    assert found == pytest.approx(least, rel=0.02)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_are_inside_and_what_is_out_of_range_is_not(norm: Any) -> None:
    x = torch.rand(2, 3, 10, 10, generator=generator(3))
    threat = JpegThreat(norm, 0.3)
    assert threat.contains(x, threat.project(x, x + torch.randn(x.shape, generator=generator(4)))).all()
    assert threat.distance(x, x).eq(0).all()
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    broken[1, 0, 0, 0] = 1.001
    assert not threat.contains(x, broken).any()
