"""FMN: the nearest adversarial image where it is known, and against DDN where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.core.randomness import generator, normal, row_keys
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import Norm

WIDE: dict[Norm, float] = {"linf": 0.9, "l2": 6.0, "l1": 40.0}


class Halfspaces(nn.Module):
    """Two classes, with a plane through the middle of the image range between them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(2 * 6 * 7, generator=generator("plane")))

    def score(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.score(x), -self.score(x)], dim=1)

    def distance(self, x: Tensor, norm: Norm) -> Tensor:
        """To the plane within [0, 1]; the images of these tests are too far from its edges to meet them under ℓ∞ and ℓ2."""
        if norm != "l1":
            return self.score(x).abs() / self.weight.norm(p={"linf": 1, "l2": 2}[norm])
        order = self.weight.abs().argsort(descending=True)
        downhill = -self.score(x).sign()[:, None] * self.weight.sign()
        room = torch.where(downhill > 0, 1 - x.flatten(1), x.flatten(1))[:, order]
        gained = (room * self.weight.abs()[order]).cumsum(dim=1)  # spend first where a unit moves the score most
        last = (gained < self.score(x).abs()[:, None]).sum(dim=1, keepdim=True)
        before = torch.where(last > 0, gained.gather(1, (last - 1).clamp_min(0)), 0)
        rest = (self.score(x).abs()[:, None] - before) / self.weight.abs()[order][last]
        spent = (room * (torch.arange(room.shape[1]) < last)).sum(dim=1, keepdim=True)
        return (spent + rest)[:, 0]


@pytest.fixture
def grey() -> Tensor:
    return 0.3 + 0.4 * torch.rand(8, 2, 6, 7, generator=generator("images"))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_finds_the_nearest_point_beyond_a_plane(norm: Norm, grey: Tensor, attacked: Callable[..., Tensor]) -> None:
    model = Halfspaces()
    y = model(grey).argmax(dim=1)
    found = attacked("fmn", model, grey, y, LpThreat(norm, WIDE[norm]), steps=100)
    assert (model(found).argmax(dim=1) != y).all()
    ratio = LpThreat(norm, WIDE[norm]).distance(grey, found) / model.distance(grey, norm)
    assert (ratio >= 0.999).all()
    assert (ratio <= 1.02).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_within_eps_is_found_and_nothing_beyond_it(norm: Norm, grey: Tensor, attacked: Callable[..., Tensor]) -> None:
    model = Halfspaces()
    y, nearest = model(grey).argmax(dim=1), model.distance(grey, norm)
    threat = LpThreat(norm, nearest.median().item())
    found = attacked("fmn", model, grey, y, threat, steps=60)
    assert threat.contains(grey, found).all()
    fooled = model(found).argmax(dim=1) != y
    clear = (nearest - threat.eps).abs() > 0.02 * threat.eps
    assert torch.equal(fooled[clear], (nearest < threat.eps)[clear])
    beyond = nearest > 1.02 * threat.eps
    gain = (model.score(grey) - model.score(found)).abs()[beyond]
    assert (gain >= 0.95 * threat.eps * model.weight.norm(p=1 if norm == "linf" else 2)).all()


def test_is_no_farther_than_ddn_on_a_network(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Callable[..., Tensor]
) -> None:
    pytest.importorskip("foolbox")
    x, y = held_out
    threat = LpThreat("l2", 5.0)
    median = {name: threat.distance(x, attacked(name, trained, x, y, threat, steps=100)).median() for name in ("fmn", "ddn")}
    assert median["fmn"] <= 1.02 * median["ddn"]


class Wavering(nn.Module):
    """Right while the mean pixel is above one half, up to noise."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        score = x.mean(dim=(1, 2, 3)) - 0.5 + 0.1 * normal(row_keys(len(x)), ())
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def test_of_a_random_model_the_decision_of_the_mean_counts(attacked: Callable[..., Tensor]) -> None:
    x, y = torch.full((4, 1, 6, 6), 0.8), torch.zeros(4, dtype=torch.long)
    found = attacked("fmn", Wavering(), x, y, LpThreat("linf", 0.6), steps=60, eot=64)
    reached = (x - found).amax(dim=(1, 2, 3))
    assert ((reached - 0.3).abs() < 0.06).all()  # noise of 0.1/√64 in each of 60 looks
