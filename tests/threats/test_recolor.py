from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdc_bench.attacks.unseen.recolor import COLOURS, VALUES, look_up
from rdc_bench.core.randomness import generator
from rdc_bench.threats import ReColorThreat
from rdc_bench.threats.recolor import coordinates, from_coordinates


def image(channels: int, seed: int = 0) -> Tensor:
    """Few colours, many pixels, black and white among them: (2, C, 9, 8)."""
    palette = torch.rand(2, channels, 12, generator=generator("palette", seed))
    palette[:, :, 0], palette[:, :, 1] = 0, 1
    return palette[:, :, torch.randint(12, (72,), generator=generator("pixels", seed))].view(2, channels, 9, 8)


@pytest.mark.parametrize(
    ("rgb", "luv"),
    [
        ((1, 0, 0), (53.24, 175.01, 37.75)),
        ((0, 1, 0), (87.73, -83.08, 107.40)),
        ((0, 0, 1), (32.30, -9.41, -130.34)),
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_cieluv_of_known_colours(rgb: tuple[float, ...], luv: tuple[float, ...]) -> None:
    found = coordinates(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    scaled = torch.stack([found[0] * 100, found[1] * 200 - 100, found[2] * 200 - 100])
    torch.testing.assert_close(scaled, torch.tensor(luv, dtype=torch.float64), atol=0.1, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_coordinates_lead_back_to_the_colour(channels: int) -> None:
    x = torch.rand(2, channels, 16, 16, generator=generator(1))
    torch.testing.assert_close(from_coordinates(coordinates(x)), x, atol=2e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_through_colours_that_do_not_exist_are_finite(channels: int) -> None:
    c = (2 * torch.rand(1, channels, 20, 20, generator=generator(2)) - 0.5).requires_grad_(True)
    image = from_coordinates(c)
    assert ((image >= 0) & (image <= 1)).all()
    image.sum().backward()
    assert c.grad is not None
    assert c.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_functions_of_colour_are_inside(channels: int) -> None:
    x, threat = image(channels), ReColorThreat(0.08)
    moved = from_coordinates(coordinates(x) + 0.08 * torch.sin(40 * coordinates(x)))
    within = threat.draw_within(x, moved)
    assert threat.contains(x, within).all()
    # The distance by another road: the largest move over the palette, one colour at a time.
    worst = torch.zeros(2, dtype=torch.float64)
    for i in range(2):
        for old, new in zip(x[i].flatten(1).T.double(), within[i].flatten(1).T.double(), strict=True):
            pair = coordinates(torch.stack([old, new])[:, :, None, None])
            worst[i] = max(worst[i], (pair[1] - pair[0]).abs().max())
    torch.testing.assert_close(threat.distance(x, within), worst)
    assert (threat.distance(x, within) > 0.07).all()


def test_grey_values_move_by_eps_at_most() -> None:
    x = image(1)
    assert ReColorThreat(0.1).contains(x, (x + 0.1).clamp(0, 1)).all()
    assert not ReColorThreat(0.1).contains(x, (x + 0.102).clamp(0, 1)).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_one_colour_may_not_become_two(channels: int) -> None:
    x, threat = torch.full((2, channels, 5, 5), 0.5), ReColorThreat(0.1)
    moved = x.clone()
    moved[0, :, 2, 2] += 0.01
    moved[1] += 0.01
    assert threat.contains(x, moved).tolist() == [False, True]
    assert threat.distance(x, moved)[0].isinf()
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert threat.contains(x, broken).tolist() == [False, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_projections_are_inside_and_stay_put(channels: int) -> None:
    x, threat = image(channels, 3), ReColorThreat(0.06)
    projected = threat.project(x, torch.rand(x.shape, generator=generator(4)))
    assert threat.contains(x, projected).all()
    assert not torch.allclose(projected, x, atol=0.01)
    torch.testing.assert_close(threat.project(x, projected), projected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("channels", "shape"), [(3, COLOURS), (1, (VALUES,)), (2, (VALUES,))])
def test_a_table_gives_its_entries_at_its_nodes(channels: int, shape: tuple[int, ...]) -> None:
    table = torch.randn(2, channels, *shape, generator=generator(5))
    node = [3 + i for i in range(channels)]
    sizes = COLOURS if channels == 3 else (VALUES,) * channels
    place = torch.tensor([n / (size - 1) for n, size in zip(node, sizes, strict=True)]).view(1, channels, 1, 1)
    found = look_up(table, place.expand(2, channels, 1, 1))[:, :, 0, 0]
    if channels == 3:
        expected = table[:, :, node[0], node[1], node[2]]
    else:
        expected = torch.stack([table[:, i, node[i]] for i in range(channels)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
