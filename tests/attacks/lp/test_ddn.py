"""DDN: the nearest adversarial image where it is known, the ball where it is farther, and life without foolbox."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from rdc_bench import UserError
from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import generator
from rdc_bench.evaluation.plan import RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.threats import LpThreat


class Halfspaces(nn.Module):
    """Two classes, with a plane between them."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = nn.Linear(64, 1)
        g = generator("plane")
        self.plane.weight.data = torch.randn(1, 64, generator=g)
        self.plane.bias.data = -self.plane.weight.data.sum()[None] / 2  # through the middle of the image range

    def distance(self, x: Tensor) -> Tensor:
        return self.plane(x.flatten(1))[:, 0].abs() / self.plane.weight.norm()

    def forward(self, x: Tensor) -> Tensor:
        score = self.plane(x.flatten(1))
        return torch.cat([score, -score], dim=1)


@pytest.fixture
def images() -> Tensor:
    """Eight images off the edges of the image range, so that the nearest point of the plane is an image."""
    return 0.35 + 0.3 * torch.rand(8, 1, 8, 8, generator=generator("images"))


def attacked(model: nn.Module, x: Tensor, eps: float) -> Tensor:
    generators = [generator(i) for i in range(len(x))]
    return ATTACKS.get("ddn").function(model, x, model(x).argmax(dim=1), LpThreat("l2", eps), generators=generators)


def test_the_nearest_adversarial_image_is_found(images: Tensor) -> None:
    pytest.importorskip("foolbox")
    model = Halfspaces().eval()
    found = attacked(model, images, eps=3.0)
    assert (model(found).argmax(dim=1) != model(images).argmax(dim=1)).all()
    reached = LpThreat("l2", 3.0).distance(images, found)
    nearest = model.distance(images).double()
    assert (reached >= nearest * 0.999).all()
    assert reached.median() <= nearest.median() * 1.02


def test_what_is_farther_than_eps_is_drawn_back(images: Tensor) -> None:
    pytest.importorskip("foolbox")
    model = Halfspaces().eval()
    nearest = model.distance(images)
    eps = nearest.median().item()
    found = attacked(model, images, eps)
    assert LpThreat("l2", eps).contains(images, found).all()
    fooled = model(found).argmax(dim=1) != model(images).argmax(dim=1)
    clear = (nearest - eps).abs() > 0.05 * eps
    assert torch.equal(fooled[clear], (nearest < eps)[clear])
    assert fooled.any()
    assert not fooled.all()


def test_without_foolbox_the_attack_is_listed_and_a_run_is_refused(monkeypatch: pytest.MonkeyPatch, toys: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "foolbox.attacks", None)
    monkeypatch.setattr(ATTACKS, "_adapted", {})
    assert ATTACKS.get("ddn").threats == ("l2",)
    with pytest.raises(UserError, match=r"needs the package foolbox .*pip install 'rdc-bench\[foolbox\]'"):
        make_plan(RunConfig(models=tuple(toys), threat="l2", eps="0.5", attacks=("ddn",), n=2))


def test_the_version_of_foolbox_belongs_to_the_run(toys: list[str]) -> None:
    pytest.importorskip("foolbox")
    (planned,) = make_plan(RunConfig(models=tuple(toys), threat="l2", eps="0.5", attacks=("ddn",), n=2)).attacks
    assert planned.origin.startswith("foolbox ")
    assert planned.identity == ["ddn", planned.options, planned.origin]
