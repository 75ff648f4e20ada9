"""Promise and change of the margin: right gradients of functions that bend and are random, and gradients that lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.evaluation.slopes import disagreement, slope_errors
from rdc_bench.randomness import Key, normal, row_keys
from rdc_bench.results.trust import TOLERANCE

KEYS: list[Key] = [("slopes", i) for i in range(8)]
REACH = 8 / 255


class Net(nn.Module):
    """Smooth where ``bend`` is tanh, with kinks where it is ReLU; optionally with keyed or with global noise on its input."""

    def __init__(self, bend: Callable[[Tensor], Tensor] = torch.tanh, noise: str = "", scale: float = 1.0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(64, 32, generator=g) / 4)
        self.last = nn.Parameter(scale * torch.randn(32, 10, generator=g))
        self.bend, self.noise = bend, noise

    def forward(self, x: Tensor) -> Tensor:
        if self.noise == "keyed":
            x = x + 0.2 * normal(row_keys(len(x)), x.shape[1:])
        if self.noise == "global":
            x = x + 0.2 * torch.randn_like(x)
        return self.bend((x.flatten(1) - 0.5) @ self.first) @ self.last


class Lying(torch.autograd.Function):
    """The first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx, true: Tensor, told: Tensor) -> Tensor:
        return true.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[None, Tensor]:
        return None, g


class Behind(nn.Module):
    def __init__(self, told: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.told = Net(), told

    def forward(self, x: Tensor) -> Tensor:
        return Lying.apply(self.net(x).detach(), self.told(self.net, x))


def images() -> tuple[Tensor, Tensor]:
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0] = 0.0  # on the edge of the range, where half of all directions lead out
    x[1] = 1.0
    return x, Net()(x).argmax(dim=1)


@pytest.mark.parametrize("bend", [torch.tanh, torch.relu])
@pytest.mark.parametrize("noise", ["", "keyed", "global"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_right_gradient_keeps_its_promise(bend: Callable[[Tensor], Tensor], noise: str, scale: float) -> None:
    x, y = images()
    assert (slope_errors(Net(bend, noise, scale), x, y, KEYS, REACH) < TOLERANCE).all()


@pytest.mark.parametrize(
    "told",
    [
        lambda net, x: -net(x),
        lambda net, x: 5 * net(x),
        lambda net, x: 0.1 * net(x),
        lambda net, x: net(x.flip(-1)),
        lambda net, x: x.flatten(1) @ torch.randn(64, 10, generator=torch.Generator().manual_seed(9)),
        lambda net, x: net(x).roll(1, dims=1),
    ],
    ids=["negated", "too steep", "too flat", "of the mirrored image", "random linear", "of other classes"],
)
def test_a_gradient_of_another_function_does_not(told: Callable[[nn.Module, Tensor], Tensor]) -> None:
    x, y = images()
    errors = slope_errors(Behind(told), x, y, KEYS, REACH)
    assert (errors > TOLERANCE).float().mean() >= 0.75


def test_a_gradient_through_rounding_that_is_straight_through_does_not() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Lying.apply(Net()((6 * x).round() / 6).detach(), Net()(20 * x))

    x, y = images()
    assert (slope_errors(Rounded(), x, y, KEYS, REACH) > TOLERANCE).float().mean() >= 0.75


def test_gradients_that_are_not_finite_keep_no_promise() -> None:
    x, y = images()
    assert (slope_errors(Behind(lambda net, x: net(x) * torch.nan), x, y, KEYS, REACH) == 1).all()


def test_disagreement_is_symmetric_and_bounded() -> None:
    a, b = torch.tensor([1.0, 0, 1, 1, 0, torch.nan]), torch.tensor([1.0, 0, -1, 3, 2, 1])
    assert disagreement(a, b).tolist() == [0, 0, 1, 0.5, 1, 1]
    assert torch.equal(disagreement(a, b), disagreement(b, a))
