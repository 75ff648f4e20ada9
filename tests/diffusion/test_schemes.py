"""Preconditionings against closed forms, and multi-head denoisers against single heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion import PRECONDITIONINGS, EDMPrecond, Precond, VEPrecond, VPPrecond
from rdc_bench.evaluation.metering import metered

TINY: dict[str, Any] = {
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
K = 3


def randomised(denoiser: Precond) -> Precond:
    """With random weights, none of them small, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for p in denoiser.parameters():
            nn.init.normal_(p, std=0.3)
    return denoiser.double().eval().requires_grad_(False)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 8, 8, generator=g, dtype=torch.float64), torch.tensor([0.01, 0.5, 2.0, 50.0], dtype=torch.float64)


def test_noise_levels_of_the_variance_preserving_diffusion() -> None:
    """``1/(1+σ²) = exp(−∫β)``, the signal's share of the variance, with β by numerical integration."""
    precond = VPPrecond(8, 3, beta_d=12.0, beta_min=0.2, **TINY)
    for t in (1e-5, 0.01, 0.3, 1.0):
        integral, _ = quad(lambda s: 12.0 * s + 0.2, 0, t)
        sigma = float(precond.sigma(torch.tensor(t, dtype=torch.float64)))
        assert 1 / (1 + sigma**2) == pytest.approx(math.exp(-integral), rel=1e-12)
        assert float(precond.sigma_inv(torch.tensor(sigma, dtype=torch.float64))) == pytest.approx(t, rel=1e-8)
    assert precond.sigma_min == pytest.approx(math.sqrt(math.expm1(0.2e-5 + 6e-10)), rel=1e-9)
    assert precond.sigma_max == pytest.approx(math.sqrt(math.expm1(6.2)), rel=1e-9)
    # Small levels survive single precision, in which 1 + σ² would drop them.
    assert float(precond.sigma_inv(precond.sigma(1e-5))) == pytest.approx(1e-5, rel=1e-2)


class Recorder(nn.Module):
    """Answers with a given output and keeps what it was asked."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.x, self.noise_labels = x, noise_labels
        return self.out


def test_perfect_predictions_denoise_perfectly(inputs: tuple[Tensor, Tensor]) -> None:
    """VP networks predict the noise n, VE networks −n, EDM networks (z − c_skip z_σ)/c_out: then D = z."""
    z, sigma = inputs
    s = sigma[:, None, None, None]
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=z.dtype)
    noisy, total = z + s * noise, s**2 + 0.25
    perfect = {"VPPrecond": noise, "VEPrecond": -noise, "EDMPrecond": (z - 0.25 / total * noisy) / (s * 0.5 / total.sqrt())}
    seen = {
        "VPPrecond": (noisy / (1 + s**2).sqrt(), 999 * VPPrecond(8, 3, **TINY).sigma_inv(sigma)),
        "VEPrecond": (noisy, (sigma / 2).log()),
        "EDMPrecond": (noisy / total.sqrt(), sigma.log() / 4),
    }
    for name, out in perfect.items():
        denoiser = PRECONDITIONINGS[name](8, 3, **TINY)
        denoiser.model = Recorder(out)
        torch.testing.assert_close(denoiser(noisy, sigma), z, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(denoiser.model.x, seen[name][0])
        torch.testing.assert_close(denoiser.model.noise_labels, seen[name][1])


@pytest.mark.parametrize("scheme", [EDMPrecond, VPPrecond, VEPrecond])
def test_config_makes_the_same_denoiser(scheme: type[Precond], inputs: tuple[Tensor, Tensor]) -> None:
    options = {"sigma_data": 0.7} if scheme is EDMPrecond else {"beta_d": 12.0} if scheme is VPPrecond else {}
    first = randomised(scheme(8, 3, K, heads=K + 1, **options, **TINY))
    second = scheme(**first.config).double().eval()
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.all_classes(*inputs), second.all_classes(*inputs))


def test_rounding_noise_levels_keeps_them() -> None:
    assert float(VEPrecond(8, 3, **TINY).round_sigma(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("scheme", [EDMPrecond, VPPrecond, VEPrecond])
def test_multi_head_is_many_single_heads(scheme: type[Precond], inputs: tuple[Tensor, Tensor]) -> None:
    """Class y owns channels 3y … 3y + 2 of the last convolution; with one head more than classes, the last is unconditional."""
    together = randomised(scheme(8, 3, label_dim=K, heads=K + 1, **TINY))
    single = []
    for head in range(K + 1):
        state = {
            key: value[3 * head : 3 * head + 3] if "8x8_aux_conv" in key else value
            for key, value in together.state_dict().items()
        }
        alone = scheme(8, 3, **TINY).double().eval()
        alone.load_state_dict(state, strict=True)
        single.append(alone(*inputs))
    everything = together.all_classes(*inputs)
    torch.testing.assert_close(everything, torch.stack(single[:K], dim=1))
    assert (everything[:, 0] - everything[:, 1]).abs().max() > 1e-2

    index = torch.tensor([2, 0, 1, 1])
    expected = everything[torch.arange(4), index]
    for labels in (index, torch.eye(K)[index]):
        torch.testing.assert_close(together(*inputs, labels), expected)
    torch.testing.assert_close(together(*inputs), single[K])
    torch.testing.assert_close(together(*inputs, torch.zeros(4, K)), single[K])
    some = torch.tensor([[0, 2], [1, 0], [2, 2], [0, 1]])
    torch.testing.assert_close(together.for_classes(*inputs, some), everything[torch.arange(4)[:, None], some])
    torch.testing.assert_close(together.for_classes(*inputs, torch.eye(K)[some]), everything[torch.arange(4)[:, None], some])


@pytest.mark.parametrize(("heads", "passes"), [(K, 1), (0, K)])
def test_all_classes_of_a_multi_head_denoiser_cost_one_pass(heads: int, passes: int, inputs: tuple[Tensor, Tensor]) -> None:
    denoiser = randomised(EDMPrecond(8, 3, label_dim=K, heads=heads, **TINY))
    with metered(denoiser) as meter:
        denoiser.all_classes(*inputs)
    assert meter.forward == 4 * passes


def test_no_head_for_the_unconditional_denoising(inputs: tuple[Tensor, Tensor]) -> None:
    denoiser = randomised(VPPrecond(8, 3, label_dim=K, heads=K, **TINY))
    for labels in (None, torch.zeros(4, K)):
        with pytest.raises(UserError, match="has 3 heads, one for each class, and none for the unconditional denoising"):
            denoiser(*inputs, labels)
    with pytest.raises(UserError, match="heads = 5: a multi-head denoiser of 3 classes has 3 or 4"):
        VPPrecond(8, 3, label_dim=K, heads=5, **TINY)
