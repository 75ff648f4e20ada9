"""Gradients of the defences against finite differences and against plain autograd, in float64."""

import pytest
import torch

from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses import RDC, DiffusionClassifier, LikelihoodMaximization
from rdc_bench.diffusion import EDMPrecond


@pytest.fixture(autouse=True)
def _float64_noise_is_exact(monkeypatch):
    torch.manual_seed(0)


def denoiser(class_in_trunk: bool = False) -> EDMPrecond:
    network = EDMPrecond(
        8,
        1,
        3,
        model_type="MultiHeadUNet",
        fine=8,
        coarse=16,
        head=32,
        blocks=(1, 2),
        head_blocks=1,
        embedding=16,
        class_in_trunk=class_in_trunk,
    )
    with torch.no_grad():
        for p in network.parameters():  # zero-initialised layers would hide most of the network from the test
            p.add_(0.2 * torch.randn_like(p))
    return network.double()


def images(n: int = 2) -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(n, 1, 8, 8, dtype=torch.float64)


def gradient(model, x, scalar) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    with draws_for([(7, i) for i in range(len(x))]):
        value = scalar(model(x))
    return torch.autograd.grad(value, x)[0]


def finite_differences(model, x, scalar, pixels, h: float = 1e-6) -> torch.Tensor:
    def value(shift):
        with torch.no_grad(), draws_for([(7, i) for i in range(len(x))]):
            return scalar(model(x + shift))

    out = []
    for pixel in pixels:
        shift = torch.zeros_like(x).flatten()
        shift[pixel] = h
        shift = shift.reshape(x.shape)
        out.append((value(shift) - value(-shift)) / (2 * h))
    return torch.stack(out)


def margin(logits):
    return (logits[:, 1] - logits[:, 0]).sum()


def entropy(logits):
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="sum")


PIXELS = [0, 9, 27, 36, 63, 64, 100, 127]
MODELS = {
    "dc": lambda d: DiffusionClassifier(d, 3, levels=5, rows_per_pass=3),
    "dc-fresh": lambda d: DiffusionClassifier(d, 3, levels=3, noise="fresh"),
    "dc-antithetic": lambda d: DiffusionClassifier(d, 3, levels=4, antithetic=True, rows_per_pass=3),
    "dc-fixed": lambda d: DiffusionClassifier(d, 3, levels=3, noise="fixed"),
    "lm-adam": lambda d: LikelihoodMaximization(d, steps=5, step_size=0.01, draws=2, rows_per_pass=3),
    "lm-normalized": lambda d: LikelihoodMaximization(d, steps=5, step_size=0.01, optimizer="normalized"),
    "lm-clamped": lambda d: LikelihoodMaximization(d, steps=5, step_size=0.02, optimizer="normalized", eta=0.03),
    "rdc": lambda d: RDC(
        LikelihoodMaximization(d, steps=5, step_size=0.02, optimizer="normalized"), DiffusionClassifier(d, 3, levels=4)
    ),
    "rdc-adam": lambda d: RDC(LikelihoodMaximization(d, steps=5, step_size=0.01), DiffusionClassifier(d, 3, levels=4)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scalar", [margin, entropy])
def test_gradient_equals_finite_differences(name, scalar):
    if name.startswith("lm") and scalar is entropy:
        pytest.skip("likelihood maximisation returns images")
    model = MODELS[name](denoiser())
    x = images()
    use = (
        scalar if not name.startswith("lm") else lambda out: (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum()
    )
    exact = gradient(model, x, use)
    assert exact.abs().max() > 1e-6
    numeric = finite_differences(model, x, use, PIXELS)
    torch.testing.assert_close(exact.flatten()[PIXELS], numeric, rtol=2e-4, atol=2e-6 * float(exact.abs().max() + 1))
