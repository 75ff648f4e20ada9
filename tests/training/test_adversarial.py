from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.networks import SmallResNet
from rdc_bench.threats import LpThreat
from rdc_bench.training.adversarial import InnerAttack, pgd_loss, standard_loss, trades_loss
from rdc_bench.training.loop import Loss

INNERS = [InnerAttack(LpThreat("linf", 0.1), 3, 0.04), InnerAttack(LpThreat("l2", 0.5), 3, 0.2)]
by_norm = pytest.mark.parametrize("inner", INNERS, ids=lambda inner: inner.threat.norm)


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallResNet(1, 3, widths=(8, 8), blocks=(1, 1)).train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(6, 1, 8, 8, generator=g), torch.randint(0, 3, (6,), generator=g)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def inputs_of(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What the model is shown from now on, in eval mode and in train mode."""
    shown: tuple[list[Tensor], list[Tensor]] = ([], [])
    model.register_forward_pre_hook(lambda module, args: shown[module.training].append(args[0].detach().clone()))
    return shown


@by_norm
@pytest.mark.parametrize("make", [pgd_loss, lambda inner: trades_loss(inner, 6.0)], ids=["pgd", "trades"])
def test_every_inner_iterate_stays_in_the_threat_set(
    model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack, make: Callable[[InnerAttack], Loss]
) -> None:
    x, y = batch
    in_eval, in_train = inputs_of(model)
    value = make(inner)(model, x, y, generator())
    assert len(in_eval) >= inner.steps
    assert all(inner.threat.contains(x, shown).all() for shown in in_eval + in_train)
    assert (inner.threat.distance(x, in_train[-1]) > 0.2 * inner.threat.eps).all()
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    value.backward()
    assert all(p.grad is not None for p in model.parameters())


@by_norm
def test_inner_attack_does_not_move_batch_statistics(
    model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack
) -> None:
    pgd_loss(inner)(model, *batch, generator())
    assert {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


@by_norm
def test_adversarial_loss_exceeds_the_clean_one(model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack) -> None:
    assert pgd_loss(inner)(model, *batch, generator()) > standard_loss(model, *batch, generator())


@by_norm
def test_trades_without_its_second_term_is_standard_training(
    model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack
) -> None:
    value = trades_loss(inner, 0.0)(model, *batch, generator())
    standard = standard_loss(model, *batch, generator())
    assert torch.equal(value, standard)
    parameters = list(model.parameters())
    gradients = zip(torch.autograd.grad(value, parameters), torch.autograd.grad(standard, parameters), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in gradients)


@by_norm
def test_trades_grows_with_beta(model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack) -> None:
    values = [trades_loss(inner, beta)(copy.deepcopy(model), *batch, generator()).item() for beta in (0.0, 1.0, 6.0)]
    assert values == sorted(values)
    assert values[2] - values[0] == pytest.approx(6 * (values[1] - values[0]), rel=1e-4)


@by_norm
def test_losses_depend_on_the_generator_only(model: nn.Module, batch: tuple[Tensor, Tensor], inner: InnerAttack) -> None:
    loss = pgd_loss(inner)
    first = loss(copy.deepcopy(model), *batch, generator())
    torch.manual_seed(17)
    assert torch.equal(first, loss(copy.deepcopy(model), *batch, generator()))
