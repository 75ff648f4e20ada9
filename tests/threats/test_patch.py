from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import generator
from rdc_bench.threats import PatchThreat, make_threat


def images(channels: int = 1) -> Tensor:
    return torch.rand(2, channels, 10, 14, generator=generator("images", channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("corner", [(0, 0), (6, 10), (3, 5)])
def test_a_square_is_inside_and_a_pixel_beside_it_is_not(channels: int, corner: tuple[int, int]) -> None:
    x, threat = images(channels), PatchThreat(0.4)  # four pixels
    row, column = corner
    patched = x.clone()
    patched[:, :, row : row + 4, column : column + 4] = torch.rand(2, channels, 4, 4, generator=generator("patch"))
    assert threat.contains(x, patched).all()
    assert (threat.distance(x, patched) == 0.4).all()
    beside = patched.clone()
    beside[0, -1, row, column + 4 if column < 10 else column - 1] = 0.123
    beside[1, 0, row + 4 if row < 6 else row - 1, column] = 0.123
    assert not threat.contains(x, beside).any()
    assert (threat.distance(x, beside) == 0.5).all()


def test_two_distant_pixels_need_a_large_square() -> None:
    x = torch.zeros(1, 1, 10, 14)
    x[0, 0, 2, 1] = x[0, 0, 4, 13] = 1
    assert PatchThreat(1.0).distance(torch.zeros_like(x), x).tolist() == [1.3]
    assert PatchThreat(0.1).distance(x, x).tolist() == [0]


def test_values_that_no_image_has_are_outside() -> None:
    x = images()
    broken = x.clone()
    broken[0, 0, 5, 5], broken[1, 0, 5, 5] = torch.nan, 1.01
    assert not PatchThreat(0.5).contains(x, broken).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_projection_is_the_nearest_of_all_squares(channels: int) -> None:
    x, threat = images(channels), PatchThreat(0.3)
    goal = torch.rand(x.shape, generator=generator("goal"))
    projected = threat.project(x, goal)
    assert threat.contains(x, projected).all()
    assert torch.equal(threat.project(x, projected), projected)
    distances = []
    for row in range(8):
        for column in range(12):
            candidate = x.clone()
            candidate[:, :, row : row + 3, column : column + 3] = goal[:, :, row : row + 3, column : column + 3]
            distances.append((candidate - goal).flatten(1).norm(dim=1))
    torch.testing.assert_close((projected - goal).flatten(1).norm(dim=1), torch.stack(distances).amin(dim=0))


def test_sizes() -> None:
    assert PatchThreat(0.2).side((1, 28, 28)) == 5
    assert PatchThreat(3 / 28).side((1, 28, 30)) == 3  # not 2 by rounding
    with pytest.raises(UserError, match=r"less than a pixel of 28 × 28; the least is 1/28"):
        make_threat("patch", "0.03", (1, 28, 28))
    with pytest.raises(UserError, match="larger than 1"):
        make_threat("patch", "1.5", (1, 28, 28))
