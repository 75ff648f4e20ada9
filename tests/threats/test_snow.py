from __future__ import annotations

import math

import pytest
import torch

from rdc_bench.core.randomness import generator
from rdc_bench.threats.snow import BUDGET, FIRST, flakes_of, random_streaks, snow, streak, within_budget


def test_a_streak_is_what_lies_near_a_segment() -> None:
    right, down, width = 4.5, -2.5, 3.0
    found = streak(torch.tensor(right), torch.tensor(down), torch.tensor(width))
    for row in range(13):
        for column in range(13):
            # The nearest of many points of the segment.
            nearest = min(math.hypot(column - 6 - t / 200 * right, row - 6 - t / 200 * down) for t in range(-200, 201))
            assert found[row, column] == pytest.approx(min(max(2 - nearest, 0), 1), abs=1e-3)


def test_a_flake_shows_its_streak_at_its_place() -> None:
    streaks = random_streaks(2, [generator(0), generator(1)])
    assert streaks.shape == (2, 7, 13, 13)
    assert ((streaks >= 0) & (streaks <= 1)).all()
    assert (streaks[:, :, 6, 6] == 1).all()
    for layer, (row, column) in enumerate(FIRST):
        intensities = torch.zeros(2, *flakes_of((1, 26, 30)))
        intensities[:, layer, 3, 4] = 0.5
        row, column = 12 + row, 16 + column
        expected = torch.zeros(2, 1, 26, 30)
        expected[:, 0, row - 6 : row + 7, column - 6 : column + 7] = 0.5**4 * streaks[:, layer]
        torch.testing.assert_close(snow(intensities, streaks, (26, 30)), expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (28, 28)])
def test_snow_fits_any_size_and_is_bounded(size: tuple[int, int]) -> None:
    streaks = random_streaks(1, [generator(2)])
    heavy = snow(torch.ones(1, *flakes_of(size)), streaks, size)
    assert heavy.shape == (1, 1, *size)
    assert (heavy == 1).any()
    assert ((heavy >= 0) & (heavy <= 1)).all()


def test_the_snow_of_an_image_falls_to_one_side() -> None:
    y, x = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-6.0, 7), indexing="ij")
    leaning = (random_streaks(40, [generator(i) for i in range(40)]) * x * y).sum(dim=(2, 3)).sign()
    assert (leaning == leaning[:, :1]).all()
    assert leaning[:, 0].unique().tolist() == [-1, 1]


def test_the_budget_is_kept() -> None:
    intensities = torch.rand(3, 7, 6, 6, generator=generator(3))
    intensities[0] *= 0.1
    kept = within_budget(intensities)
    assert torch.equal(kept[0], intensities[0])
    torch.testing.assert_close(kept[1:].mean(dim=(2, 3)), torch.full((2, 7), BUDGET))
    torch.testing.assert_close(kept[1:] * intensities[1:, :, :1, :1], intensities[1:] * kept[1:, :, :1, :1])
