from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import generator
from rdc_bench.data import load_dataset
from rdc_bench.threats import RotationTranslationThreat, make_threat
from rdc_bench.threats.rotation_translation import transform


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return load_dataset("fashion-mnist").images[:6]


def parameters(count: int, eps: float, name: str) -> Tensor:
    return eps * (2 * torch.rand(count, 3, generator=generator(name)) - 1)


def test_the_transformation_is_scipys(clothes: Tensor) -> None:
    angle, right, down = 0.7, -0.5, 0.9
    moved = transform(clothes[:1].double(), torch.tensor([[angle, right, down]], dtype=torch.float64))
    theta, shift = math.radians(30 * angle), np.array([3 * down, 3 * right])
    # An output pixel p, in (row, column), reads the input at M(p − centre − shift) + centre.
    matrix = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    centre = np.array([13.5, 13.5])
    image = clothes[0, 0].double().numpy()
    expected = ndimage.affine_transform(image, matrix, centre - matrix @ (centre + shift), order=1, mode="grid-constant")
    torch.testing.assert_close(moved[0, 0], torch.from_numpy(expected), atol=1e-9, rtol=0)


def test_one_unit_is_thirty_degrees_and_three_pixels_of_28(clothes: Tensor) -> None:
    moved = transform(clothes, torch.tensor([[0.0, 1.0, 0.0]]).expand(6, 3))
    torch.testing.assert_close(moved[..., 3:], clothes[..., :-3], atol=1e-5, rtol=0)
    assert moved[..., :3].abs().max() < 1e-5
    quarter = transform(clothes, torch.tensor([[3.0, 0.0, 0.0]]).expand(6, 3))
    torch.testing.assert_close(quarter, clothes.rot90(-1, dims=(2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [0.1, 1.0])
def test_transformations_are_inside_and_their_parameters_are_found(clothes: Tensor, eps: float) -> None:
    wanted = parameters(6, eps, "inside")
    wanted[0] = torch.tensor([eps, -eps, eps])  # attacks like the corners
    moved = transform(clothes, wanted).clamp(0, 1)
    found = RotationTranslationThreat(eps).distance(clothes, moved)
    torch.testing.assert_close(found, wanted.abs().amax(dim=1).double(), atol=2e-3, rtol=0)
    larger = transform(clothes, 1.3 * wanted / wanted.abs().amax(dim=1, keepdim=True) * eps).clamp(0, 1)
    assert not RotationTranslationThreat(eps).contains(clothes, larger).any()


@pytest.mark.parametrize("shape", [(3, 3, 16, 12), (2, 1, 64, 70)])
def test_noise_of_any_shape_is_found_too(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=generator("noise"))
    moved = transform(x, parameters(shape[0], 0.6, "noise")).clamp(0, 1)
    threat = RotationTranslationThreat(0.6)
    assert threat.contains(x, moved).all()
    torch.testing.assert_close(threat.project(x, moved), moved, atol=1e-3, rtol=0)


def test_what_no_transformation_gives_is_outside(clothes: Tensor) -> None:
    threat = RotationTranslationThreat(0.2)
    x = clothes[:3]
    assert threat.distance(x, x).eq(0).all()
    broken = x.clone()
    broken[0, 0, 4, 4] = torch.nan
    broken[1, 0, 14, 14] += 0.02 if broken[1, 0, 14, 14] < 0.5 else -0.02
    assert threat.contains(x, broken).tolist() == [False, False, True]
    assert threat.contains(x, threat.project(x, torch.rand_like(x))).all()


@pytest.mark.parametrize("name", ["rotation-translation", "stadv", "elastic"])
def test_an_image_of_one_row_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"threat {name} needs images of at least 2 × 2 pixels, not 1 × 8"):
        make_threat(name, None, (1, 1, 8))
