from __future__ import annotations

import numpy as np
import pytest
import torch

from rdc_bench.core.randomness import generator
from rdc_bench.threats import FogThreat
from rdc_bench.threats.fog import blend, cloud, side_of


def diamond_square(offsets: np.ndarray) -> np.ndarray:
    """The algorithm point by point: squares first, then diamonds, on a torus."""
    side = len(offsets)
    points, step, bound = np.zeros((side, side)), side, 1.0
    while step > 1:
        half = step // 2
        for i in range(half, side, step):
            for j in range(half, side, step):
                corners = [points[(i + a) % side, (j + b) % side] for a in (-half, half) for b in (-half, half)]
                points[i, j] = np.mean(corners) + bound * offsets[i, j]
        for i in range(0, side, half):
            for j in range((i + half) % step, side, step):
                ends = [points[(i + a) % side, (j + b) % side] for a, b in ((-half, 0), (half, 0), (0, -half), (0, half))]
                points[i, j] = np.mean(ends) + bound * offsets[i, j]
        step, bound = half, bound / 2
    return (points - points.min()) / (points.max() - points.min())


@pytest.mark.parametrize("side", [2, 4, 16])
def test_the_cloud_is_the_diamond_square_map(side: int) -> None:
    offsets = 2 * torch.rand(2, side, side, generator=generator("offsets", side), dtype=torch.float64) - 1
    found = cloud(offsets)
    for i in range(2):
        torch.testing.assert_close(found[i], torch.from_numpy(diamond_square(offsets[i].numpy())))


def test_any_map_is_the_cloud_of_small_offsets() -> None:
    """The reason why membership asks for no smoothness."""
    goal = torch.rand(1, 8, 8, generator=generator("goal"), dtype=torch.float64)
    goal[0, 3, 1], goal[0, 5, 6] = 0, 1
    offsets, spacing, bound = torch.zeros_like(goal), 4, 1.0
    values = 1e-3 * (goal - goal[0, 0, 0])
    while spacing:
        for i in range(0, 8, spacing):
            for j in range(0, 8, spacing):
                if (i // spacing) % 2 and (j // spacing) % 2:
                    around = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
                elif (i // spacing) % 2 or (j // spacing) % 2:
                    around = [(-1, 0), (1, 0), (0, -1), (0, 1)]
                else:
                    continue
                mean = sum(values[0, (i + a * spacing) % 8, (j + b * spacing) % 8] for a, b in around) / 4
                offsets[0, i, j] = (values[0, i, j] - mean) / bound
        spacing, bound = spacing // 2, bound / 2
    assert offsets.abs().max() < 1
    torch.testing.assert_close(cloud(offsets), goal)


@pytest.mark.parametrize(("shape", "side"), [((1, 28, 28), 32), ((3, 32, 32), 64), ((1, 5, 40), 64), ((1, 1, 1), 2)])
def test_the_cloud_is_larger_than_the_image(shape: tuple[int, ...], side: int) -> None:
    assert side_of(shape) == side


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("eps", [0.05, 0.5, 3.0])
def test_blends_are_inside_and_denser_ones_outside(channels: int, eps: float) -> None:
    x = (1.4 * torch.rand(3, channels, 9, 12, generator=generator("x", channels)) - 0.2).clamp(0, 1)
    x[2] *= 0.6
    fog = torch.rand(3, 9, 12, generator=generator("fog"))
    foggy = blend(x, fog, eps)
    greatest = x.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(foggy, (x + eps * fog[:, None]) * greatest / (greatest + eps))  # as Hendrycks & Dietterich write
    assert FogThreat(eps).contains(x, foggy).all()
    assert (FogThreat(eps).distance(x, foggy) <= eps * 1.001).all()
    # A fog that is black at the brightest place and full at a black one has no lesser density.
    fog[:, 0, 0], fog[:, 0, 1] = 0, 1
    x[:, :, 0, 0], x[:, :, 0, 1] = greatest.flatten(1), 0
    foggy = blend(x, fog, eps)
    torch.testing.assert_close(FogThreat(eps).distance(x, foggy), torch.full((3,), eps, dtype=torch.float64), rtol=1e-3, atol=0)
    assert FogThreat(eps).contains(x, foggy).all()
    assert not FogThreat(0.98 * eps).contains(x, foggy).any()


def test_fog_has_no_colour_and_images_have_values() -> None:
    x = torch.rand(3, 3, 6, 6, generator=generator("colours"))
    foggy = blend(x, torch.full((3, 6, 6), 0.5), 0.5)
    foggy[0, 0, 2, 2] += 1e-4
    foggy[1, 1, 0, 0] = torch.nan
    threat = FogThreat(0.6)
    assert threat.contains(x, foggy).tolist() == [False, False, True]
    assert threat.distance(x, foggy)[:2].isinf().all()


def test_without_fog_nothing_changes() -> None:
    x = torch.rand(2, 3, 6, 6, generator=generator("clear"))
    assert FogThreat(0.1).contains(x, x).all()
    assert (FogThreat(0.1).distance(x, x) == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_projections_are_inside_and_stay_put(channels: int) -> None:
    x = torch.rand(2, channels, 8, 7, generator=generator("original"))
    threat = FogThreat(0.4)
    projected = threat.project(x, torch.rand(x.shape, generator=generator("noise")))
    assert threat.contains(x, projected).all()
    assert not torch.allclose(projected, x, atol=0.01)
    assert torch.equal(threat.project(x, projected), projected)
