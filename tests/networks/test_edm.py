"""EDM's networks against NVlabs' implementation of them.

``data/edm.safetensors`` holds inputs, and the outputs that NVlabs' code (github.com/NVlabs/edm, training/networks.py) computed
from them in float32 with the weights that ``random_weights`` makes; ``data/edm.json`` holds the arguments of each case, and
``data/edm_keys.json`` the keys and shapes of the state dicts of published checkpoints' configurations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError
from rdc_bench.diffusion import PRECONDITIONINGS, EDMPrecond
from rdc_bench.networks import DhariwalUNet, SongUNet, network_class

Weights = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Build = Callable[[str], nn.Module]

DATA = Path(__file__).parent / "data"
CASES: dict[str, dict[str, Any]] = json.loads((DATA / "edm.json").read_text())
PUBLISHED: dict[str, dict[str, Any]] = json.loads((DATA / "edm_keys.json").read_text())


@pytest.fixture
def build(random_weights: Weights) -> Callable[[str], nn.Module]:
    """From a case's name to its module, with its weights loaded strictly."""

    def built(name: str) -> nn.Module:
        classes = PRECONDITIONINGS | {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
        module = classes[CASES[name]["class"]](**CASES[name]["config"]).eval().requires_grad_(False)
        module.load_state_dict(random_weights(module.state_dict()), strict=True)
        return module

    return built


def stored(name: str) -> dict[str, Tensor]:
    """The arguments of a case's call, and ``out``."""
    tensors = safetensors.torch.load_file(DATA / "edm.safetensors")
    return {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_original(name: str, build: Build) -> None:
    call = stored(name)
    expected = call.pop("out")
    found = build(name)(**call)
    assert found.dtype == torch.float32
    scale = float(expected.abs().max())
    assert scale > 0.5
    assert float((found - expected).abs().max()) < 1e-5 * max(scale, 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_those_of_published_state_dicts(name: str) -> None:
    published = PUBLISHED[name]
    with torch.device("meta"):
        module = PRECONDITIONINGS[published["class"]](**published["config"])
    assert {key: list(value.shape) for key, value in module.state_dict().items()} == published["state"]


def test_labels_and_sigma_in_every_form(build: Build) -> None:
    denoiser = build("edm-ddpmpp")
    z = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 10.0])
    index = torch.tensor([4, 0, 9])
    one_hot = torch.eye(10)[index]
    expected = denoiser(z, sigma, one_hot)
    for labels in (index, one_hot.long(), one_hot.double()):
        torch.testing.assert_close(denoiser(z, sigma.double().reshape(3, 1, 1, 1), labels), expected, rtol=0, atol=0)
    torch.testing.assert_close(denoiser(z, sigma), denoiser(z, sigma, torch.zeros(1, 10)), rtol=0, atol=1e-6)
    # Whatever the images' type, the network computes in its own, as the original does.
    torch.testing.assert_close(denoiser(z.double(), sigma, one_hot), expected)
    torch.testing.assert_close(denoiser.all_classes(z, sigma)[torch.arange(3), index], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", ["SongUNet", "DhariwalUNet"])
def test_initial_variances(network: str) -> None:
    """Those that training starts from in EDM: an untrained network is close to zero or zero, and no layer saturates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = network_class(network)(32, 3, 3, label_dim=10, augment_dim=9, model_channels=64, num_blocks=1).eval()
    state = net.state_dict()
    if network == "SongUNet":
        expected = {
            "map_layer0.weight": 2 / (64 + 256),
            "map_label.weight": 2 / (10 + 64),
            "enc.32x32_block0.conv0.weight": 2 / (9 * (64 + 64)),
            "enc.32x32_block0.conv1.weight": 1e-10 * 2 / (9 * (64 + 64)),
            "enc.16x16_block0.qkv.weight": 0.2 * 2 / (128 + 384),
        }
    else:
        expected = {
            "map_layer0.weight": 1 / (3 * 64),
            "map_layer0.bias": 1 / (3 * 64),
            "map_label.weight": 1.0,
            "enc.32x32_block0.conv0.weight": 1 / (3 * 9 * 64),
            "enc.16x16_block0.qkv.weight": 1 / (3 * 128),
        }
        assert not state["map_augment.weight"].any()
        assert not state["out_conv.weight"].any()
    for key, variance in expected.items():
        assert float(state[key].var()) == pytest.approx(variance, rel=0.2), key


@pytest.mark.parametrize("resolution", [12, 30])
def test_resolution_that_cannot_be_halved(resolution: int) -> None:
    with pytest.raises(UserError, match=f"img_resolution {resolution} cannot be halved 3 times"):
        EDMPrecond(resolution, 3, model_type="SongUNet")


def test_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown encoder_type 'residuel'\. Did you mean 'residual'"):
        SongUNet(32, 3, 3, encoder_type="residuel")  # type: ignore[arg-type]


def test_label_dropout_in_training_alone(random_weights: Weights) -> None:
    net = SongUNet(
        8, 1, 1, label_dim=3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(), label_dropout=1
    )
    net.load_state_dict(random_weights(net.state_dict()))
    x, noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2)
    labels = torch.eye(3)[:2]
    assert (net.eval()(x, noise, labels) - net(x, noise)).abs().max() > 1e-2
    for module in net.modules():
        if hasattr(module, "style"):
            module.style = module.style._replace(dropout=0.0)
    torch.testing.assert_close(net.train()(x, noise, labels), net(x, noise))
