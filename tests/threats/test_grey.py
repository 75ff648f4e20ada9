from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdc_bench.core.randomness import generator
from rdc_bench.threats import GaborThreat, SnowThreat

BOTH = pytest.mark.parametrize("make", [GaborThreat, SnowThreat])


def case(channels: int, make: type) -> tuple[Tensor, Tensor]:
    """Images with black and white in them, and a grey pattern of greatest size 1 that may be added."""
    x = (1.6 * torch.rand(3, channels, 8, 9, generator=generator("x", channels)) - 0.3).clamp(0, 1)
    pattern = torch.rand(3, 1, 8, 9, generator=generator("pattern"))
    return x, 2 * pattern - 1 if make.darkens else pattern


@BOTH
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("eps", [0.02, 0.3, 0.9])
def test_clipped_grey_patterns_are_inside(make: type, channels: int, eps: float) -> None:
    x, pattern = case(channels, make)
    changed = (x + eps * pattern).clamp(0, 1)
    assert make(eps).contains(x, changed).all()
    assert (make(eps).distance(x, changed) <= eps + 1e-6).all()
    # No pattern that gives the image is smaller than what some pixel plainly changed by.
    assert (make(eps).distance(x, changed) >= (changed - x).abs().flatten(1).amax(dim=1) - 1e-6).all()


@BOTH
def test_just_outside(make: type) -> None:
    x = torch.full((4, 3, 5, 5), 0.5)
    changed = x + 0.1
    changed[0, :, 2, 2] += 0.001  # too much
    changed[1, 1, 2, 2] -= 0.001  # no longer grey
    changed[2, 0, 2, 2] = torch.nan
    assert make(0.1).contains(x, changed).tolist() == [False, False, False, True]
    assert make(0.1).distance(x, changed).isinf().tolist() == [False, True, True, False]


def test_snow_only_brightens() -> None:
    x = torch.full((1, 1, 5, 5), 0.5)
    darker = x - 0.05
    assert GaborThreat(0.1).contains(x, darker).all()
    assert not SnowThreat(0.1).contains(x, darker).any()


def test_a_clipped_channel_follows_the_others() -> None:
    x = torch.tensor([0.2, 0.95]).view(1, 2, 1, 1)
    assert GaborThreat(0.3).distance(x, torch.tensor([0.4, 1.0]).view(1, 2, 1, 1)).item() == pytest.approx(0.2)
    # To turn the second white takes at least 0.05, of which the first shows less.
    assert GaborThreat(0.3).distance(x, torch.tensor([0.22, 1.0]).view(1, 2, 1, 1)).isinf()


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_projections_are_inside_and_stay_put(make: type, channels: int) -> None:
    x, _ = case(channels, make)
    projected = make(0.2).project(x, torch.rand(x.shape, generator=generator("goal")))
    assert make(0.2).contains(x, projected).all()
    assert not torch.allclose(projected, x, atol=0.01)
    assert torch.equal(make(0.2).project(x, projected), projected)
