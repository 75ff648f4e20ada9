from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion.precondition import EDMPrecond

TINY: dict[str, Any] = {
    "model_type": "MultiHeadUNet",
    "fine": 8,
    "coarse": 32,
    "blocks": (1, 1),
    "head": 32,
    "head_blocks": 1,
    "embedding": 16,
}
K = 3


@pytest.fixture
def untrained() -> EDMPrecond:
    return EDMPrecond(8, 1, label_dim=K, sigma_data=0.6, **TINY).double()


@pytest.fixture
def denoiser(untrained: EDMPrecond) -> EDMPrecond:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for p in untrained.parameters():
            nn.init.normal_(p, std=0.3)
    return untrained


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(4, 1, 8, 8, generator=g, dtype=torch.float64), torch.tensor([0.01, 0.5, 2.0, 50.0], dtype=torch.float64)


def test_untrained_network_shrinks_its_input(untrained: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    z, sigma = inputs
    c_skip = 0.6**2 / (sigma**2 + 0.6**2)
    torch.testing.assert_close(untrained(z, sigma), c_skip[:, None, None, None] * z)


def test_preconditioning_follows_its_formula(denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    z, sigma = inputs
    s = sigma[:, None, None, None]
    total = s**2 + 0.6**2
    labels = torch.eye(K, dtype=torch.float64)[[0, 1, 2, 0]]
    raw = denoiser.model(z / total.sqrt(), sigma.log() / 4, labels)
    torch.testing.assert_close(denoiser(z, sigma, labels), 0.6**2 / total * z + s * 0.6 / total.sqrt() * raw)


def test_index_labels_equal_one_hot_labels(denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    index = torch.tensor([0, 2, 1, 2])
    one_hot = torch.eye(K, dtype=torch.float64)[index]
    assert torch.equal(denoiser(*inputs, index), denoiser(*inputs, one_hot))
    several = torch.stack([index, (index + 1) % K], dim=1)
    several_one_hot = torch.eye(K, dtype=torch.float64)[several]
    assert torch.equal(denoiser.for_classes(*inputs, several), denoiser.for_classes(*inputs, several_one_hot))


def test_no_label_is_the_zero_label(denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(denoiser(*inputs), denoiser(*inputs, torch.zeros(4, K, dtype=torch.float64)))


@pytest.mark.parametrize("class_in_trunk", [True, False], ids=["teacher", "student"])
def test_all_classes_equal_one_class_at_a_time(
    denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor], class_in_trunk: bool
) -> None:
    denoiser.model.class_in_trunk = class_in_trunk
    together = denoiser.all_classes(*inputs)
    assert together.shape == (4, K, 1, 8, 8)
    for y in range(K):
        torch.testing.assert_close(together[:, y], denoiser(*inputs, torch.full((4,), y)))


def test_network_without_heads_is_called_once_per_class(inputs: tuple[Tensor, Tensor]) -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor) -> Tensor:
            weight = class_labels @ torch.arange(1.0, K + 1, dtype=x.dtype)
            return x * weight[:, None, None, None] + noise_labels[:, None, None, None]

    denoiser = EDMPrecond(8, 1, label_dim=K, **TINY)
    denoiser.model = Plain()
    together = denoiser.all_classes(*inputs)
    for y in range(K):
        torch.testing.assert_close(together[:, y], denoiser(*inputs, torch.full((4,), y)))


def test_one_noise_level_for_the_whole_batch(denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    z, _ = inputs
    level = torch.tensor(0.7, dtype=torch.float64)
    assert torch.equal(denoiser(z, level), denoiser(z, level.expand(4)))
    assert torch.equal(denoiser.all_classes(z, level), denoiser.all_classes(z, level.expand(4)))


def test_second_derivatives_are_exact(denoiser: EDMPrecond, inputs: tuple[Tensor, Tensor]) -> None:
    z, sigma = inputs[0][1:3].requires_grad_(True), inputs[1][1:3]
    denoiser.requires_grad_(False)
    assert torch.autograd.gradgradcheck(lambda z: denoiser.all_classes(z, sigma), z, fast_mode=True)


def test_unknown_network() -> None:
    with pytest.raises(UserError, match="unknown network 'MultiHeadUnet'"):
        EDMPrecond(8, 1, model_type="MultiHeadUnet")
