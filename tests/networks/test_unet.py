from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.networks import MultiHeadUNet

TINY: dict[str, Any] = {"fine": 8, "coarse": 32, "blocks": (1, 2), "head": 32, "head_blocks": 1, "embedding": 16}
K = 3


def network(class_in_trunk: bool, **changes: Any) -> MultiHeadUNet:
    """A tiny network in float64 whose every weight is random, so that no branch is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MultiHeadUNet(8, 1, 1, label_dim=K, class_in_trunk=class_in_trunk, **{**TINY, **changes}).double()
        for p in net.parameters():
            nn.init.normal_(p, std=0.3)
    return net


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 8, 8, generator=g, dtype=torch.float64), torch.randn(2, generator=g, dtype=torch.float64)


def one_hot(*classes: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[list(classes)]


@pytest.mark.parametrize("class_in_trunk", [True, False], ids=["teacher", "student"])
def test_all_classes_at_once_equal_one_at_a_time(inputs: tuple[Tensor, Tensor], class_in_trunk: bool) -> None:
    net = network(class_in_trunk)
    together = net.for_classes(*inputs, one_hot(0, 1, 2).expand(2, K, K))
    assert together.shape == (2, K, 1, 8, 8)
    for y in range(K):
        torch.testing.assert_close(together[:, y], net(*inputs, one_hot(y, y)))
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-3


def test_classes_may_differ_between_images(inputs: tuple[Tensor, Tensor]) -> None:
    net = network(False)
    out = net.for_classes(*inputs, torch.stack([one_hot(0, 2), one_hot(1, 0)]))
    torch.testing.assert_close(out[:, 0], net(*inputs, one_hot(0, 1)))
    torch.testing.assert_close(out[:, 1], net(*inputs, one_hot(2, 0)))


def test_teachers_weights_fit_the_student_which_differs_in_the_trunk_only(inputs: tuple[Tensor, Tensor]) -> None:
    teacher, student = network(True), network(False)
    student.load_state_dict(teacher.state_dict(), strict=True)
    labels = one_hot(0, 1, 2).expand(2, K, K)
    assert (teacher.for_classes(*inputs, labels) - student.for_classes(*inputs, labels)).abs().max() > 1e-3

    # Without a label both trunks see the same embedding.
    torch.testing.assert_close(teacher(*inputs), student(*inputs))

    # A trunk that does not listen to its embedding leaves the class to the heads.
    for net in (teacher, student):
        for name, p in net.trunk.named_parameters():
            if "affine" in name:
                nn.init.zeros_(p)
    torch.testing.assert_close(teacher.for_classes(*inputs, labels), student.for_classes(*inputs, labels))


@pytest.mark.parametrize("class_in_trunk", [True, False], ids=["teacher", "student"])
def test_unconditional_is_the_zero_label(inputs: tuple[Tensor, Tensor], class_in_trunk: bool) -> None:
    net = network(class_in_trunk)
    assert torch.equal(net(*inputs), net(*inputs, torch.zeros(2, K, dtype=torch.float64)))
    assert (net(*inputs) - net(*inputs, one_hot(0, 0))).abs().max() > 1e-3


def test_network_without_classes(inputs: tuple[Tensor, Tensor]) -> None:
    net = MultiHeadUNet(8, 1, 1, **TINY).double()
    assert net(*inputs).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("class_in_trunk", [True, False], ids=["teacher", "student"])
def test_second_derivatives_are_exact(inputs: tuple[Tensor, Tensor], class_in_trunk: bool) -> None:
    net = network(class_in_trunk).requires_grad_(False)
    x, noise_labels = inputs[0].requires_grad_(True), inputs[1]
    labels = one_hot(0, 2).expand(2, 2, K)
    assert torch.autograd.gradgradcheck(lambda z: net.for_classes(z, noise_labels, labels), x, fast_mode=True)


def test_trunk_runs_once_per_image_and_not_once_per_class(inputs: tuple[Tensor, Tensor]) -> None:
    rows: list[int] = []
    for net in (network(False), network(True)):
        net.trunk.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
        net.for_classes(*inputs, one_hot(0, 1, 2).expand(2, K, K))
    assert rows == [2, 2 * K]


def test_images_of_a_batch_do_not_mix(inputs: tuple[Tensor, Tensor]) -> None:
    net = network(False)
    x, noise_labels = inputs
    torch.testing.assert_close(net(x, noise_labels)[1:], net(x[1:], noise_labels[1:]))


@pytest.mark.parametrize(("resolution", "patch"), [(10, 2), (7, 1), (28, 4)])
def test_resolution_that_does_not_divide(resolution: int, patch: int) -> None:
    with pytest.raises(ValueError, match=f"img_resolution {resolution} is not divisible by 2 \\* patch = {2 * patch}"):
        MultiHeadUNet(resolution, 1, 1, patch=patch)


@pytest.mark.parametrize(("resolution", "channels", "patch"), [(28, 1, 2), (32, 3, 2), (6, 3, 1), (32, 1, 4)])
def test_shapes(resolution: int, channels: int, patch: int) -> None:
    net = MultiHeadUNet(resolution, channels, channels, label_dim=K, patch=patch, **TINY)
    x = torch.rand(2, channels, resolution, resolution)
    assert net(x, torch.zeros(2)).shape == x.shape
