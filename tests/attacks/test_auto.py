from __future__ import annotations

import copy
import logging
import sys
from typing import Any

import pytest
import torch
from pyautoattack import checks
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from rdc_bench.threats import LpThreat


def test_fab_is_the_librarys(trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any) -> None:
    x, y = held_out
    ours = attacked("fab", trained, x, y, LpThreat("linf", 0.1), steps=20)
    theirs = FABAttack_PT(copy.deepcopy(trained), "Linf", n_iter=20, eps=0.1).perturb(x, y)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("kind", ["linf", "l2"])
def test_fab_finds_the_nearest_boundary_of_a_linear_model(kind: Any, attacked: Any) -> None:
    weight = torch.randn(100, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
    model.requires_grad_(False)
    model[1].weight.copy_(torch.stack([weight, -weight]))
    model[1].bias.copy_(torch.tensor([1.0, -1.0]) - model[1].weight.sum(dim=1) / 2)
    x, y = torch.full((1, 1, 10, 10), 0.5), torch.tensor([0])
    nearest = float(1 / (weight.abs().sum() if kind == "linf" else weight.norm()))
    far = LpThreat(kind, 2 * nearest)
    assert nearest <= far.distance(x, attacked("fab", model, x, y, far, steps=50)) <= 1.02 * nearest
    assert torch.equal(attacked("fab", model, x, y, LpThreat(kind, 0.9 * nearest), steps=50), x)


class Watched(nn.Module):
    """Notes what it is called with, and what the global generator draws inside."""

    def __init__(self, net: nn.Module, *, stochastic: bool = False, fails: bool = False) -> None:
        super().__init__()
        self.net, self.stochastic, self.fails = net, stochastic, fails
        self.batches: list[int] = []
        self.draws: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.fails and len(self.batches) == 4:
            raise RuntimeError("out of memory")
        self.batches.append(len(x))
        self.draws.append(torch.rand(2, 1, 1, 1))
        return self.net(x)


@pytest.mark.parametrize("fails", [False, True])
def test_the_librarys_side_effects_stay_inside(
    fails: bool, trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any, small_budgets: None
) -> None:
    x, y = held_out
    model = Watched(trained, fails=fails)
    counts = dict(checks.funcs)
    state = torch.get_rng_state()
    trace = sys.gettrace()

    def traced(*_: Any) -> None: ...

    sys.settrace(traced)
    try:
        if fails:
            with pytest.raises(RuntimeError, match="out of memory"):
                attacked("autoattack", model, x, y, LpThreat("linf", 0.2))
        else:
            attacked("autoattack", model, x, y, LpThreat("linf", 0.2))
        assert sys.gettrace() is traced
    finally:
        sys.settrace(trace)
    assert checks.funcs == counts
    assert torch.equal(torch.get_rng_state(), state)
    assert not logging.getLogger("auto-attack").disabled
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())
    assert torch.is_grad_enabled()
    # What the model draws itself is not made the same for all images.
    assert all(first != second for first, second in model.draws)


def test_a_stochastic_model_sees_one_image_at_a_time(
    trained: nn.Module, held_out: tuple[Tensor, Tensor], attacked: Any
) -> None:
    x, y = held_out
    model = Watched(trained, stochastic=True)
    attacked("square", model, x, y, LpThreat("linf", 0.1), queries=20)
    assert set(model.batches) == {1}
