"""Checkpoints under score_sde's names against the RDC authors' multi-head network.

``data/score_sde.safetensors`` holds inputs, and the outputs that the authors' code (github.com/huanranchen/DiffusionClassifier,
``NCSNppMultiHead`` with three classes) computed from them on the CPU with the weights that ``random_weights`` makes;
``data/score_sde_keys.json`` holds the keys and shapes of those networks' state dicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion import VPPrecond
from rdc_bench.networks import SongUNet
from rdc_bench.networks.score_sde import from_score_sde

DATA = Path(__file__).parent / "data"
KEYS: dict[str, dict[str, list[int]]] = json.loads((DATA / "score_sde_keys.json").read_text())
TENSORS = safetensors.torch.load_file(DATA / "score_sde.safetensors")
K = 3
SHAPE: dict[str, Any] = {"model_channels": 16, "channel_mult": [1, 2, 2], "num_blocks": 1, "attn_resolutions": [8]}
CONFIGS: dict[str, dict[str, Any]] = {
    "authors": {},
    "residual": {"encoder_type": "residual", "resample_filter": [1, 3, 3, 1]},
    "skip-fourier": {
        "encoder_type": "skip",
        "embedding_type": "fourier",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
}
Checkpoint = Callable[[str], dict[str, Tensor]]


@pytest.fixture
def checkpoint(random_weights: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Checkpoint:
    def made(name: str) -> dict[str, Tensor]:
        shapes = {key: torch.empty(shape) for key, shape in KEYS[name].items()}
        sigmas = shapes.pop("sigmas")
        return {**random_weights(shapes), "sigmas": sigmas}

    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_the_authors(name: str, checkpoint: Checkpoint) -> None:
    net = SongUNet(16, 3, 3 * K, **SHAPE, **CONFIGS[name]).eval()
    net.load_state_dict(from_score_sde(checkpoint(name), net), strict=True)
    time = TENSORS[f"{name}/t"]
    expected = TENSORS[f"{name}/out"]
    # With Fourier features, score_sde's network takes the logarithm of its noise level itself.
    found = net(TENSORS[f"{name}/x"], time.log() if "fourier" in name else time)
    assert expected.std() > 0.2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_losses_are_those_of_the_authors_classifier(checkpoint: Checkpoint) -> None:
    """Their loss of a class is the error of the noise that its head predicts from √ᾱ z + √(1−ᾱ) n; ours is of denoisings."""
    denoiser = VPPrecond(16, 3, label_dim=K, heads=K, model_type="SongUNet", **SHAPE).eval()
    denoiser.model.load_state_dict(from_score_sde(checkpoint("authors"), denoiser.model), strict=True)
    g = torch.Generator().manual_seed(0)
    z, noise = torch.rand(2, 3, 16, 16, generator=g) * 2 - 1, torch.randn(2, 3, 16, 16, generator=g)
    step = torch.tensor([40.0, 500.0])
    sigma = denoiser.sigma(step / 999)
    s = sigma[:, None, None, None]
    alpha_bar = 1 / (1 + s**2)
    # The authors' layout: their code reshapes the channels to (classes, image channels).
    predicted = denoiser.model(alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * noise, step).reshape(2, K, 3, 16, 16)
    expected = (predicted - noise[:, None]).square().mean(dim=(2, 3, 4))
    error = denoiser.all_classes(z + s * noise, sigma) - z[:, None]
    torch.testing.assert_close(error.square().mean(dim=(2, 3, 4)) / sigma[:, None] ** 2, expected, rtol=1e-4, atol=1e-5)


def test_arguments_of_another_shape(checkpoint: Checkpoint) -> None:
    state = checkpoint("authors")
    with pytest.raises(UserError, match="has no 'all_modules"):
        from_score_sde(state, SongUNet(16, 3, 9, **{**SHAPE, "num_blocks": 2}))
    with pytest.raises(UserError, match=r"'all_modules\.\d+.*' has no place"):
        from_score_sde(state | {"all_modules.99.weight": torch.zeros(1)}, SongUNet(16, 3, 9, **SHAPE))
    with pytest.raises(UserError, match=r"aux_conv.weight has shape \(9, 16, 3, 3\) in the checkpoint, \(3, 16, 3, 3\)"):
        from_score_sde(state, SongUNet(16, 3, 3, **SHAPE))
