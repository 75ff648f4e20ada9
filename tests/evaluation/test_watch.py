"""What is seen of a model while it is attacked, whoever attacks it and however the batch is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks.losses import margin
from rdc_bench.evaluation.watch import FEW, KEPT_PASSES, Watch, watched
from rdc_bench.threats import LpThreat
from rdc_bench.threats.lp import linf


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, 5, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


EPS = 0.1


@pytest.fixture
def batch() -> tuple[Linear, Tensor, Tensor]:
    model = Linear()
    x = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return model, x, model(x).argmax(dim=1)


def watch_of(batch: tuple[Linear, Tensor, Tensor], threat: Any = None, **more: Any) -> Watch:
    _, x, y = batch
    return Watch(x, y, threat or linf(EPS), more.pop("stochastic", False), frozenset(range(len(x))), **more)


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(margin(model(x), y).sum(), x)
    return found


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [4], [5, 0, 2], [3, 3, 3], [1, 0, 3, 2, 5, 4], [0, 1, 2, 3, 4, 5] * 3])
def test_rows_are_told_apart_however_a_library_cuts_the_batch(batch: Any, rows: list[int]) -> None:
    _, x, _ = batch
    near = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    assert watch_of(batch).owners(near[rows]).tolist() == rows


def test_whole_copies_belong_to_the_images_in_order_even_where_all_points_meet(batch: Any) -> None:
    _, x, _ = batch
    grey = torch.full_like(x, 0.5).repeat(2, 1, 1, 1)
    assert watch_of(batch).owners(grey).tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_watching_changes_neither_logits_nor_gradients(batch: Any) -> None:
    model, x, y = batch
    before = model(x), gradient(model, x, y)
    with watched(model, watch_of(batch)):
        during = model(x), gradient(model, x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_gradients_are_sorted_by_whether_they_can_be_followed(batch: Any) -> None:
    model, x, y = batch
    watch = watch_of(batch)
    scale = torch.tensor([1.0, 0.0, torch.nan, torch.inf, 1.0, 1.0])
    with watched(model, watch):
        point = x.clone().requires_grad_(True)
        torch.autograd.grad((margin(model(point), y) * scale)[:5].sum(), point)
        point = x[:2].clone().requires_grad_(True)
        torch.autograd.grad((margin(model(point), y[:2]) * torch.tensor([torch.nan, 1.0])).sum(), point)
        model(x)  # asks for none
    # The loss left the last image out, so that its gradient was zero.
    assert [watch.seen(i).gradients for i in range(6)] == ["partly", "partly", "never", "never", "ok", "never"]


def test_an_image_that_was_never_differentiated_says_so(batch: Any) -> None:
    model, x, _ = batch
    watch = watch_of(batch)
    with watched(model, watch), torch.no_grad():
        model(x)
    assert watch.seen(0).gradients is None
    assert watch.seen(0).rose is None


def test_a_gradient_that_the_model_takes_inside_is_not_the_attacks(batch: Any) -> None:
    inner, x, y = batch

    class Inside(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            with torch.enable_grad():
                inside = z if z.requires_grad else z.detach().requires_grad_(True)
                torch.autograd.grad(inner(inside).sum(), inside, retain_graph=True)
            return inner(z.detach()) + 0 * z.sum()

    watch = watch_of(batch)
    model = Inside()
    with watched(model, watch):
        gradient(model, x, y)
    assert {watch.seen(i).gradients for i in range(len(x))} == {"never"}


def test_the_loss_rises_when_it_was_ever_higher_than_at_first(batch: Any) -> None:
    model, x, y = batch
    up = EPS / 4 * gradient(model, x, y).sign()
    signs = torch.tensor([1, -1, 1, -1, 1, -1])[:, None, None, None]
    watch = watch_of(batch)
    with watched(model, watch):
        for points in (x, x + signs * up, x - up):
            model(points)
    assert [watch.seen(i).rose for i in range(6)] == [True, False, True, False, True, False]


def test_a_few_looks_at_a_random_model_do_not_say_whether_the_loss_rises(batch: Any) -> None:
    model, x, y = batch
    down = x - EPS / 4 * gradient(model, x, y).sign()
    watch = watch_of(batch, stochastic=True)
    with watched(model, watch):
        model(x)
        for _ in range(FEW):
            assert watch.seen(0).rose is None
            model(down)
    assert watch.seen(0).rose is False


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("stochastic", [False, True])
def test_logits_that_are_not_finite_are_an_error_of_the_model(batch: Any, value: float, stochastic: bool) -> None:
    inner, x, _ = batch

    class Sometimes(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            moved = (z - x[: len(z)]).flatten(1).abs().amax(dim=1) > 0.01
            return torch.where(moved[:, None] & (torch.arange(5) == 2), value, inner(z))

    watch = watch_of(batch, stochastic=stochastic)
    model = Sometimes()
    near, far = (x + 0.02).clamp(0, 1), (x + 3 * EPS).clamp(0, 1)
    with watched(model, watch):
        model(x)
        model(far)  # outside: nobody may return it
        assert all(watch.seen(i).wrong is None for i in range(6))
        model(near)
    assert all(torch.equal(watch.seen(i).wrong, near[i]) for i in range(6))  # type: ignore[arg-type]


def test_a_wrong_class_within_the_ball_is_kept_of_a_deterministic_model_alone(batch: Any) -> None:
    model, x, y = batch
    up = gradient(model, x, y).sign()
    for stochastic in (False, True):
        watch = watch_of(batch, LpThreat("linf", 1.0), stochastic=stochastic)
        point = (x + up).clamp(0, 1)
        with watched(model, watch):
            model(point)
        fooled = model(point).argmax(dim=1) != y
        assert fooled.any()
        assert [watch.seen(i).wrong is not None for i in range(6)] == [bool(f) and not stochastic for f in fooled]


def test_points_of_the_path_are_those_of_early_passes(batch: Any) -> None:
    model, x, y = batch
    watch = watch_of(batch, stochastic=True)
    points = [(x + 0.01 * i).clamp(0, 1) for i in range(20)]
    with watched(model, watch):
        for point in points:
            gradient(model, point, y)
    for image in range(6):
        kept = watch.seen(image).path
        assert len(kept) == len(KEPT_PASSES)
        assert all(torch.equal(a, points[number - 1][image]) for a, number in zip(kept, KEPT_PASSES, strict=True))
