"""What may not change a diffusion classifier's logits, and its gradients, with EDM's networks inside."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rdc_bench.defenses import DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion import EDMPrecond, VPPrecond
from rdc_bench.networks import DhariwalUNet, SongUNet

Weights = Callable[[dict[str, Tensor]], dict[str, Tensor]]
SONG: dict[str, Any] = {"model_type": "SongUNet", "model_channels": 16, "channel_mult": [1, 2], "attn_resolutions": [8]}
ADM: dict[str, Any] = {"model_type": "DhariwalUNet", "model_channels": 32, "channel_mult": [1, 2], "attn_resolutions": [8]}
#: The bounds that docs/reference/networks.md states, relative to a logit: of sums in another order, and of one unit of bf16.
ROUNDING = 1e-5
BF16 = 5e-3


@pytest.fixture(params=[SONG, ADM], ids=["SongUNet", "DhariwalUNet"])
def classifier(request: pytest.FixtureRequest, random_weights: Weights) -> DiffusionClassifier:
    denoiser = EDMPrecond(16, 3, 4, num_blocks=1, **request.param).eval().requires_grad_(False)
    denoiser.load_state_dict(random_weights(denoiser.state_dict()))
    return DiffusionClassifier(denoiser, 4, levels=2, noise="fixed")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def logits(classifier: DiffusionClassifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = classifier(x)
    assert float((out.amax(dim=1) - out.amin(dim=1)).min()) > 0.01  # the classes differ by more than any bound here
    return out


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected) / expected).abs().max())


def test_channels_last(classifier: DiffusionClassifier, images: Tensor) -> None:
    expected = logits(classifier, images)
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert relative(logits(classifier, images), expected) < ROUNDING


def test_bf16_autocast(classifier: DiffusionClassifier, images: Tensor) -> None:
    expected = logits(classifier, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = logits(classifier, images)
        forced = classifier.denoiser(images, torch.tensor(0.5), force_fp32=True)
    assert found.dtype == torch.float32
    assert 0 < relative(found, expected) < BF16
    assert torch.equal(forced, classifier.denoiser(images, torch.tensor(0.5)))


def compiled_agrees(classifier: DiffusionClassifier, images: Tensor, backend: str) -> None:
    expected = logits(classifier, images)
    classifier.denoiser.model = torch.compile(classifier.denoiser.model, backend=backend)
    assert relative(logits(classifier, images), expected) < ROUNDING
    torch.compiler.reset()


@pytest.mark.parametrize("classifier", [SONG], indirect=True, ids=["SongUNet"])
def test_torch_compile_traces_the_network(classifier: DiffusionClassifier, images: Tensor) -> None:
    """Without the compiler behind it, which takes a minute; see the next test."""
    compiled_agrees(classifier, images, "aot_eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_torch_compile(classifier: DiffusionClassifier, images: Tensor) -> None:
    compiled_agrees(classifier, images, "inductor")


def test_gradient_of_the_classifier_is_that_of_plain_autograd(random_weights: Weights) -> None:
    denoiser = VPPrecond(8, 3, 3, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]).eval()
    denoiser.load_state_dict(random_weights(denoiser.state_dict()))
    classifier = DiffusionClassifier(denoiser.double().requires_grad_(False), 3, levels=3, rows_per_pass=4, noise="fixed")
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 8, 8, generator=g, dtype=torch.float64).requires_grad_(True)
    direction = torch.randn(2, 3, generator=g, dtype=torch.float64)
    found = torch.autograd.grad((classifier(x) * direction).sum(), x)[0]

    plain = torch.zeros(2, 3, dtype=torch.float64)
    for chunk in classifier.losses(x, [("fixed", 0)] * 2, torch.arange(3).expand(2, -1)):
        plain = plain.index_add(0, chunk.image, -chunk.loss)
    torch.testing.assert_close(classifier(x), plain)
    expected = torch.autograd.grad((plain * direction).sum(), x)[0]
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("network", ["SongUNet", "NCSN++", "DhariwalUNet"])
def test_second_derivatives_are_exact(network: str, random_weights: Weights) -> None:
    options: dict[str, Any] = {"channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [4]}
    if network == "DhariwalUNet":
        net: SongUNet | DhariwalUNet = DhariwalUNet(4, 1, 1, 2, model_channels=64, **options)
    else:
        ncsnpp: dict[str, Any] = {"encoder_type": "residual", "decoder_type": "skip", "resample_filter": [1, 3, 3, 1]}
        net = SongUNet(4, 1, 1, 2, model_channels=8, **options, **(ncsnpp if network == "NCSN++" else {}))
    net.load_state_dict(random_weights(net.state_dict()))
    net.double().eval().requires_grad_(False)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 4, 4, generator=g, dtype=torch.float64).requires_grad_(True)
    noise_labels, labels = torch.tensor([-0.3], dtype=torch.float64), torch.eye(2, dtype=torch.float64)[:1]
    assert torch.autograd.gradgradcheck(lambda x: net(x, noise_labels, labels), x, fast_mode=True)


def test_gradient_through_likelihood_maximisation(random_weights: Weights) -> None:
    denoiser = EDMPrecond(
        8, 1, 2, model_type="SongUNet", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]
    )
    denoiser.load_state_dict(random_weights(denoiser.state_dict()))
    denoiser.double().eval().requires_grad_(False)
    maximization = LikelihoodMaximization(denoiser, steps=2, step_size=0.01, optimizer="normalized", noise="fixed")
    g = torch.Generator().manual_seed(0)
    x = (0.2 + 0.6 * torch.rand(1, 1, 8, 8, generator=g, dtype=torch.float64)).requires_grad_(True)
    direction = torch.randn(x.shape, generator=g, dtype=torch.float64)
    along = torch.randn(x.shape, generator=g, dtype=torch.float64)
    exact = float((torch.autograd.grad((maximization(x) * direction).sum(), x)[0] * along).sum())
    with torch.no_grad():
        h = 1e-6 * along
        numeric = float(((maximization(x + h) - maximization(x - h)) * direction).sum()) / 2e-6
    assert exact == pytest.approx(numeric, rel=1e-5)
    assert exact != pytest.approx(float((direction * along).sum()), rel=1e-3)  # that of the identity
