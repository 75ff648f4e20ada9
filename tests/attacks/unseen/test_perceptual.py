"""PPGD and LPA: their bound recomputed, and their result against the optimum where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks.unseen.perceptual import steepest
from rdc_bench.core.randomness import generator
from rdc_bench.data import load_dataset
from rdc_bench.threats.perceptual import PerceptualThreat
from rdc_bench.zoo.loading import load_model

FEATURES, EPS = 12, 0.05


class Linear(nn.Module):
    """Two classes told apart by one direction, so far from the border that nothing in these tests crosses it."""

    def __init__(self, direction: Tensor) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.direction
        return torch.stack([score, torch.full_like(score, -1e3)], dim=1)


@pytest.fixture
def linear() -> tuple[Tensor, Linear, Tensor, Tensor]:
    """A linear embedding of nine pixels, a linear model, images far from black and white, and their labels."""
    g = generator("linear")
    matrix = torch.randn(FEATURES, 9, generator=g, dtype=torch.float64)
    model = Linear(torch.randn(9, generator=g))
    x = 0.5 + 0.05 * torch.randn(5, 1, 3, 3, generator=g)
    return matrix, model, x, torch.zeros(len(x), dtype=torch.long)


def optimum(matrix: Tensor, direction: Tensor) -> Tensor:
    """The change with ``‖A δ‖ = ε`` that lowers ``wᵀ δ`` most: ``−ε M⁻¹ w / √(wᵀ M⁻¹ w)`` with ``M = Aᵀ A``."""
    solved = torch.linalg.solve(matrix.T @ matrix, direction.double())
    return -EPS * solved / (direction.double() @ solved).sqrt()


@pytest.mark.parametrize(
    ("name", "options", "share"),
    [("ppgd", {"steps": 12, "cg_steps": 9}, 0.995), ("lpa", {"steps": 40, "searches": 8}, 0.9)],
)
def test_on_a_linear_embedding_and_model_the_known_optimum_is_reached(linear, attacked, name, options, share) -> None:
    matrix, model, x, y = linear
    threat = PerceptualThreat(EPS, lambda images: images.flatten(1) @ matrix.T)
    best = optimum(matrix, model.direction)
    assert (x + best.view(1, 1, 3, 3)).min() > 0
    assert (x + best.view(1, 1, 3, 3)).max() < 1
    change = (attacked(name, model, x, y, threat, **options) - x).flatten(1).double()
    assert ((change @ matrix.T).norm(dim=1) <= EPS * (1 + 1e-5)).all()
    gained, possible = change @ model.direction.double(), best @ model.direction.double()
    assert (gained / possible >= share).all()
    assert (gained / possible <= 1 + 1e-5).all()


def test_the_steepest_step_solves_the_normal_equations_on_the_free_pixels() -> None:
    g = generator("normal")
    matrix = torch.randn(FEATURES, 9, generator=g, dtype=torch.float64)

    def embed(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T).sin()

    point, gradient = torch.rand(3, 1, 3, 3, generator=g), torch.randn(3, 1, 3, 3, generator=g)
    free = torch.rand(3, 1, 3, 3, generator=g) < 0.7
    direction, length = steepest(embed, point, gradient, free, 30)
    assert (direction[~free] == 0).all()
    for i in range(3):
        kept = free[i].flatten()
        jacobian = (matrix * (matrix @ point[i].flatten().double()).cos()[:, None])[:, kept]
        goal = gradient[i].flatten().double()[kept]
        expected = torch.linalg.solve(jacobian.T @ jacobian, goal / goal.norm())
        torch.testing.assert_close(direction[i].flatten()[kept], expected, atol=1e-8, rtol=1e-6)
        torch.testing.assert_close(length[i], (jacobian @ expected).norm())


@pytest.mark.parametrize("name", ["ppgd", "lpa"])
def test_on_the_bundled_networks_more_images_fall_than_to_noise_of_the_same_distance(attacked, name) -> None:
    data = load_dataset("fashion-mnist", "test", 12)
    model = load_model("at-linf-fashion-mnist")
    x, y = data.images, data.labels
    right = model(x).argmax(dim=1) == y
    x, y = x[right][:4], y[right][:4]
    threat = PerceptualThreat(1.0)
    options = {"steps": 4, **({"searches": 2} if name == "lpa" else {})}
    adversarial = attacked(name, model, x, y, threat, **options)
    assert (threat.distance(x, adversarial) <= 1.0).all()
    noise = threat.project(x, x + torch.randn(x.shape, generator=generator("noise")))
    assert (threat.distance(x, noise) > 0.9).all()
    assert (model(adversarial).argmax(dim=1) == y).sum() < (model(noise).argmax(dim=1) == y).sum()
