"""Auto-PGD against the authors' implementation, which ``pyautoattack`` carries, and against known optima."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from rdc_bench.attacks.apgd import checkpoints
from rdc_bench.attacks.losses import OBJECTIVES, cross_entropy, margin
from rdc_bench.threats import LpThreat

NORMS = {"linf": "Linf", "l2": "L2"}
EPS = {"linf": 0.04, "l2": 0.5}


class AsStochastic(nn.Module):
    """The same network, declared stochastic: attacks then return the point of the highest objective."""

    stochastic = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class SameStart:
    """Gives the authors' code a start, and the start's objective for its first comparison.

    Their first review compares the first step with a zero, the place in the buffer that holds the start's objective in the
    paper's algorithm.
    """

    def attack_single_run(self, x: Tensor, y: Tensor, x_init: Tensor | None = None) -> Any:
        self.first = True
        result = super().attack_single_run(x, y, x_init=start(x, self.eps))  # type: ignore[misc]
        self.runs = [*getattr(self, "runs", []), result]
        return result

    def dlr_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.remember(super().dlr_loss(x, y))  # type: ignore[misc]

    def dlr_loss_targeted(self, x: Tensor, y: Tensor) -> Tensor:
        return self.remember(super().dlr_loss_targeted(x, y))  # type: ignore[misc]

    def remember(self, value: Tensor) -> Tensor:
        if self.first:
            self.start_value, self.first = value.detach(), False
        return value

    def check_oscillation(self, x: Tensor, j: int, k: int, y5: Tensor, k3: float = 0.75) -> Tensor:
        if j + 1 == k and self.loss != "ce":  # type: ignore[attr-defined]
            x[-1] = self.start_value
        return super().check_oscillation(x, j, k, y5, k3=k3)  # type: ignore[misc]


class Reference(SameStart, APGDAttack):
    pass


class TargetedReference(SameStart, APGDAttack_targeted):
    pass


def start(x: Tensor, eps: float) -> Tensor:
    pattern = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return (x + eps * pattern / pattern.norm()).clamp(0, 1)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """In float32, rounding grows over a hundred steps until step sizes are halved at other reviews."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def net(trained: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), *copy.deepcopy(trained.layers))


@pytest.fixture
def same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LpThreat, "random_start", lambda self, x, generators: start(x, self.eps))


@pytest.mark.usefixtures("in_float64", "same_start")
@pytest.mark.parametrize("steps", [30, 100])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_agrees_with_the_authors_code(
    kind: Any, loss: str, steps: int, net: nn.Module, images: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = images[0][900:964].double(), images[1][900:964]
    right = net(x).argmax(dim=1) == y
    x, y = x[right], y[right]
    reference = Reference(net, n_iter=steps, norm=NORMS[kind], eps=EPS[kind], loss=loss)
    reference.init_hyperparam(x)
    best, unbroken, value, _ = reference.attack_single_run(x, y)
    stand = unbroken.bool()
    assert 0 < stand.sum() < len(x)

    same = stand if loss == "dlr" else torch.ones_like(stand)  # beyond the boundary, we cap the DLR
    ours = attacked(f"apgd-{loss}", AsStochastic(net), x, y, LpThreat(kind, EPS[kind]), steps=steps, eot=1)
    torch.testing.assert_close(ours[same], best[same], atol=1e-9, rtol=0)
    torch.testing.assert_close(OBJECTIVES[loss](net(ours), y)[same], value[same], atol=1e-9, rtol=0)

    ours = attacked(f"apgd-{loss}", net, x, y, LpThreat(kind, EPS[kind]), steps=steps, eot=1)
    assert torch.equal(net(ours).argmax(dim=1) == y, stand)
    torch.testing.assert_close(ours[stand], best[stand], atol=1e-9, rtol=0)


@pytest.mark.usefixtures("same_start")
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_targeted_agrees_with_the_authors_code(
    kind: Any, trained: nn.Module, images: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = images[0][900:932], images[1][900:932]
    reference = TargetedReference(trained, n_iter=30, norm=NORMS[kind], eps=EPS[kind])
    broken = trained(reference.perturb(x, y)).argmax(dim=1) != y
    ours = attacked("apgd-t", trained, x, y, LpThreat(kind, EPS[kind]), steps=30, eot=1)
    assert torch.equal(trained(ours).argmax(dim=1) != y, broken)
    assert 0 < broken.sum() < len(x)

    # Whoever withstands all nine targets has seen the same nine runs in both.
    stand = ~broken
    x, y = x[stand], y[stand]
    reference = TargetedReference(trained, n_iter=30, norm=NORMS[kind], eps=EPS[kind])
    reference.perturb(x, y)
    points, values = torch.stack([run[0] for run in reference.runs]), torch.stack([run[2] for run in reference.runs])
    assert len(points) == 9
    expected = points[values.argmax(dim=0), torch.arange(len(x))]
    torch.testing.assert_close(ours[stand], expected, atol=2e-6, rtol=0)


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert list(checkpoints(1)) == [1]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "apgd-margin"])
@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_reaches_the_optimum_of_a_linear_model(name: str, kind: Any, attacked: Any) -> None:
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    model.requires_grad_(False)
    model[1].weight.copy_(torch.stack([weight, -weight]) / 2)
    model[1].bias.copy_(torch.tensor([6.0, -6.0]) / 2 - model[1].weight.sum(dim=1) / 2)
    x, y = torch.full((2, 1, 10, 10), 0.5), torch.tensor([0, 0])  # margin −6, and no clipping within eps
    eps = 0.05
    adversarial = attacked(name, model, x, y, LpThreat(kind, eps), **({"steps": 60} if name != "fgsm" else {}))
    gained = margin(model(adversarial), y) - margin(model(x), y)
    most = eps * (weight.abs().sum() if kind == "linf" else weight.norm())
    torch.testing.assert_close(gained, most.expand(2), rtol=0.02, atol=0)


def test_keeps_the_first_success_on_a_deterministic_model_only(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = held_out
    threat = LpThreat("linf", 0.1)
    first, highest = (attacked("apgd-ce", m, x, y, threat, steps=40, eot=1) for m in (trained, AsStochastic(trained)))
    fooled = trained(first).argmax(dim=1) != y
    assert fooled.any()
    early, late = cross_entropy(trained(first), y)[fooled], cross_entropy(trained(highest), y)[fooled]
    assert (early <= late).all()
    assert (early < late).sum() > len(x) / 2


@pytest.mark.parametrize("name", ["apgd-t", "fab-t", "autoattack"])
def test_few_classes_have_fewer_targets(name: str, attacked: Any, small_budgets: None) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 4))
    x = torch.rand(2, 1, 10, 10)
    threat = LpThreat("linf", 1e-4)
    assert threat.contains(x, attacked(name, model, x, model(x).argmax(dim=1), threat)).all()
