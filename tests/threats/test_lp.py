from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from rdc_bench.core.randomness import generator
from rdc_bench.threats import LpThreat

kinds = st.sampled_from(["linf", "l2", "l1"])
sizes = st.floats(1e-4, 3)
seeds = st.integers(0, 2**32)
SHAPE = (3, 2, 5, 4)


def draw(seed: int, scale: float) -> tuple[Tensor, Tensor]:
    """Images, some with saturated pixels, and points around them that may lie outside of [0, 1]."""
    g = generator(seed)
    x = (1.4 * torch.rand(SHAPE, generator=g) - 0.2).clamp(0, 1)
    return x, x + scale * torch.randn(SHAPE, generator=g)


@settings(deadline=None)
@given(kinds, sizes, seeds, st.floats(1e-3, 10))
def test_projections_are_inside_and_stay_put(kind: Any, eps: float, seed: int, scale: float) -> None:
    threat = LpThreat(kind, eps)
    x, point = draw(seed, scale)
    projected = threat.project(x, point)
    assert threat.contains(x, projected).all()
    torch.testing.assert_close(threat.project(x, projected), projected, atol=2e-7, rtol=0)


@settings(deadline=None)
@given(kinds, sizes, seeds)
def test_an_inside_point_is_not_moved(kind: Any, eps: float, seed: int) -> None:
    threat = LpThreat(kind, eps)
    x, _ = draw(seed, 1)
    inside = threat.random_start(x, [generator(seed, i) for i in range(len(x))])
    assert threat.contains(x, inside).all()
    torch.testing.assert_close(threat.project(x, inside), inside, atol=2e-7, rtol=0)


@settings(deadline=None)
@given(sizes, seeds)
def test_the_linf_projection_is_the_nearest_point(eps: float, seed: int) -> None:
    threat = LpThreat("linf", eps)
    x, point = draw(seed, 1)
    distance = (point - threat.project(x, point)).flatten(1).norm(dim=1)
    for i in range(5):
        other = threat.random_start(x, [generator(seed, i)])
        assert (distance <= (point - other).flatten(1).norm(dim=1) + 1e-6).all()


@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_membership(kind: Any) -> None:
    threat = LpThreat(kind, 0.5)
    x = torch.full((1, 1, 2, 2), 0.5)

    def at(value: float) -> bool:
        point = x.clone()
        point[0, 0, 0, 0] = value
        return bool(threat.contains(x, point))

    assert at(0.5)
    assert at(1.0)
    assert at(0.0)
    assert not at(1.0 + 1e-6)
    assert not at(-1e-6)
    assert not at(float("nan"))
    assert not at(float("inf"))
    tight = LpThreat(kind, 0.1)
    assert tight.contains(x, x + torch.tensor([[0.1, 0.0], [0.0, 0.0]]))
    assert not tight.contains(x, x + torch.tensor([[0.1001, 0.0], [0.0, 0.0]]))


def test_rounding_is_forgiven_at_small_sizes() -> None:
    x = torch.rand(200, 1, 28, 28, generator=generator(0))
    for kind in ("linf", "l2", "l1"):
        threat = LpThreat(kind, 0.5 / 255)
        assert threat.contains(x, threat.project(x, x + torch.randn(x.shape, generator=generator(1)))).all()


def test_distances_by_hand() -> None:
    x = torch.zeros(1, 1, 2, 2)
    point = torch.tensor([[[[0.3, 0.0], [0.0, 0.4]]]])
    torch.testing.assert_close(LpThreat("linf", 1).distance(x, point), torch.tensor([0.4], dtype=torch.float64))
    torch.testing.assert_close(LpThreat("l2", 1).distance(x, point), torch.tensor([0.5], dtype=torch.float64))
    torch.testing.assert_close(LpThreat("l1", 1).distance(x, point), torch.tensor([0.7], dtype=torch.float64))


def test_l2_starts_are_uniform_in_the_ball() -> None:
    x = torch.full((4000, 1, 1, 3), 0.5)
    threat = LpThreat("l2", 0.1)
    radius = threat.distance(x, threat.random_start(x, [generator(0)])) / 0.1
    quantiles = torch.quantile(radius**3, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    torch.testing.assert_close(quantiles, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), atol=0.03, rtol=0)


def test_starts_depend_on_each_images_generator_alone() -> None:
    x = torch.rand(3, 1, 4, 4, generator=generator(0))
    for kind in ("linf", "l2", "l1"):
        threat = LpThreat(kind, 0.1)
        together = threat.random_start(x, [generator("start", i) for i in range(3)])
        alone = threat.random_start(x[1:2], [generator("start", 1)])
        assert torch.equal(together[1:2], alone)


@settings(deadline=None)
@given(st.sampled_from(["linf", "l2"]), seeds)
def test_the_steepest_direction_is_a_unit_vector_that_gains_the_dual_norm(kind: Any, seed: int) -> None:
    gradient = torch.randn(SHAPE, generator=generator(seed))
    direction = LpThreat(kind, 1).steepest(gradient, torch.full(SHAPE, 0.5))
    gain = (gradient * direction).flatten(1).sum(dim=1)
    flat = gradient.flatten(1)
    torch.testing.assert_close(gain, flat.abs().sum(dim=1) if kind == "linf" else flat.norm(dim=1))


def test_a_step_under_l1_moves_the_largest_coordinates_that_can_move() -> None:
    x = torch.full((1, 1, 8, 5), 0.5)
    gradient = torch.linspace(-1, 1, 40).view_as(x)
    x[0, 0, -1, -1] = 1  # the largest gradient pushes this pixel out of the range
    direction = LpThreat("l1", 1).steepest(gradient, x).flatten()
    assert direction.nonzero().flatten().tolist() == [0, 1]  # 5 % of 40; the tie with the excluded one is at the other end
    assert direction[:2].tolist() == [-0.5, -0.5]
    assert LpThreat("l1", 1).steepest(torch.zeros_like(x), x).eq(0).all()


@settings(deadline=None, max_examples=15)
@given(st.floats(0.05, 6), seeds)
def test_the_l1_projection_is_the_solution_of_its_quadratic_programme(eps: float, seed: int) -> None:
    x, point = draw(seed, 1)
    projected = LpThreat("l1", eps).project(x, point)
    for image, wanted, found in zip(x.double(), point.double(), projected.double(), strict=True):
        base, goal = image.flatten().numpy(), (wanted - image).flatten().numpy()
        n = len(goal)
        # δ = a − b with a, b ≥ 0 within the box's room; Σ (a + b) ≤ ε.
        solution = minimize(
            lambda ab, goal=goal, n=n: ((ab[:n] - ab[n:] - goal) ** 2).sum(),
            np.zeros(2 * n),
            jac=lambda ab, goal=goal, n=n: np.concatenate([2 * (ab[:n] - ab[n:] - goal), -2 * (ab[:n] - ab[n:] - goal)]),
            bounds=[(0, room) for room in (*(1 - base), *base)],
            constraints={"type": "ineq", "fun": lambda ab, eps=eps: eps - ab.sum(), "jac": lambda ab: -np.ones_like(ab)},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 300},
        )
        delta = torch.from_numpy(solution.x[:n] - solution.x[n:]).view_as(image)
        torch.testing.assert_close(found - image, delta, atol=2e-4, rtol=0)


def test_l1_starts_are_uniform_in_the_ball() -> None:
    x = torch.full((4000, 1, 1, 3), 0.5)
    threat = LpThreat("l1", 0.1)
    start = threat.random_start(x, [generator(0)])
    thirds = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    torch.testing.assert_close(torch.quantile((threat.distance(x, start) / 0.1) ** 3, thirds), thirds, atol=0.03, rtol=0)
    share = (start - x).abs().flatten(1)[:, 0] / (start - x).abs().flatten(1).sum(dim=1)
    assert share.mean() == pytest.approx(1 / 3, abs=0.01)
