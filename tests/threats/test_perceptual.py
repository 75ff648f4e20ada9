from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rdc_bench import UserError
from rdc_bench.core.randomness import generator
from rdc_bench.data import load_dataset
from rdc_bench.networks import ResNet18, SmallResNet
from rdc_bench.threats import make_threat
from rdc_bench.threats.perceptual import LAYERS, PerceptualThreat, activations, normalized
from rdc_bench.zoo.loading import load_model


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """ReLU of a 2 × 2 convolution without padding, place by place: (C, H, W) to (O, H − 1, W − 1)."""
    out = np.zeros((len(weight), x.shape[1] - 1, x.shape[2] - 1))
    for o in range(len(weight)):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[o, i, j] = max(0.0, float((weight[o] * x[:, i : i + 2, j : j + 2]).sum()))
    return out


def formula(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """The distance as the paper writes it, layer by layer and place by place."""
    total = 0.0
    for a, b in zip(first, second, strict=True):
        places = a.shape[1] * a.shape[2]
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                u, v = a[:, i, j], b[:, i, j]
                total += float(((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2).sum()) / places
    return math.sqrt(total)


@given(st.integers(0, 1000))
def test_the_distance_is_the_papers_formula_on_a_network_of_two_layers(seed: int) -> None:
    g = generator("lpips", seed)
    weights = [
        torch.rand(4, 2, 2, 2, generator=g, dtype=torch.float64),
        torch.rand(3, 4, 2, 2, generator=g, dtype=torch.float64),
    ]
    weights[1] -= 0.3

    def embedding(x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(nn.functional.conv2d(x, weights[0]))
        second = torch.relu(nn.functional.conv2d(first, weights[1])) + 0.1
        return normalized([first, second])

    x, other = (torch.rand(2, 2, 5, 4, generator=g) for _ in range(2))
    found = PerceptualThreat(0.5, embedding).distance(x, other)
    for i in range(2):
        layers = []
        for image in (x[i].double().numpy(), other[i].double().numpy()):
            first = convolved(image, weights[0].numpy())
            layers.append([first, convolved(first, weights[1].numpy()) + 0.1])
        assert float(found[i]) == pytest.approx(formula(*layers))


@pytest.mark.parametrize("network", [SmallResNet(1, 10), ResNet18(1, 10)])
def test_the_last_activations_are_those_that_the_classifier_sees(network: nn.Module) -> None:
    x = torch.rand(2, 1, 16, 12, generator=generator("x"))
    network.eval()
    layers = activations(network, x)
    assert len(layers) == LAYERS
    assert all((h >= 0).all() for h in layers)
    head = network.classifier if isinstance(network, SmallResNet) else network.linear
    torch.testing.assert_close(head(layers[-1].mean(dim=(2, 3))), network(x))


def test_the_bundled_network_decides_and_its_distance_is_no_pixel_distance() -> None:
    x = load_dataset("fashion-mnist", "test", 4).images
    threat, eps = make_threat("perceptual", None, (1, 28, 28))
    assert (float(eps), threat.eps) == (0.5, 0.5)
    other = x.roll(1, dims=0)
    expected = [
        formula(
            *(
                [h[i].numpy() for h in activations(load_model("standard-fashion-mnist").double(), images.double())]
                for images in (x, other)
            )
        )
        for i in range(2)
    ]
    torch.testing.assert_close(threat.distance(x, other)[:2], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    assert (threat.distance(x, x) == 0).all()
    assert (threat.distance(x, other) < threat.max_eps((1, 28, 28))).all()


def test_membership_is_the_bound_and_the_range() -> None:
    x = load_dataset("fashion-mnist", "test", 4).images
    noised = (x + 0.02 * torch.randn(x.shape, generator=generator("noise"))).clamp(0, 1)
    distance = PerceptualThreat(0.5).distance(x, noised)
    least, most = float(distance.min()), float(distance.max())
    between = (least + most) / 2
    assert PerceptualThreat(between).contains(x, noised).tolist() == (distance <= between).tolist()
    out_of_range = x.clone()
    out_of_range[0, 0, 0, 0] = -1e-3
    out_of_range[1, 0, 0, 0] = torch.nan
    assert PerceptualThreat(3.0).contains(x, out_of_range).tolist() == [False, False, True, True]


def test_the_projection_keeps_what_is_inside_and_brings_the_rest_to_the_bound() -> None:
    x = load_dataset("fashion-mnist", "test", 6).images
    share = torch.tensor([0.0, 0.02, 0.7, 0.7, 1.0, 1.0])[:, None, None, None]
    other = x.lerp(x.flip(0), share)
    threat = PerceptualThreat(0.5)
    inside = threat.contains(x, other)
    assert inside.tolist() == [True, True, False, False, False, False]
    projected = threat.project(x, other)
    torch.testing.assert_close(projected[inside], other[inside], atol=1e-7, rtol=0)
    distance = threat.distance(x, projected)
    assert (distance <= 0.5).all()
    assert (distance[~inside] > 0.45).all()
    change = (projected - x).flatten(1)
    along = (other - x).flatten(1)
    assert (torch.cosine_similarity(change, along)[~inside] > 1 - 1e-5).all()


@pytest.mark.parametrize("shape", [(2, 28, 28), (1, 7, 28), (4, 32, 32)])
def test_images_that_no_bundled_network_sees_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="networks for images of 1 or 3 channels and at least 8 × 8"):
        make_threat("perceptual", None, shape)


def test_a_card_of_the_users_of_the_same_name_changes_no_distance(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = load_dataset("fashion-mnist", "test", 2).images
    before = PerceptualThreat(0.5).distance(x, x.flip(0))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "standard-fashion-mnist.yaml").write_text("schema_version: 1\n")
    monkeypatch.chdir(tmp_path)
    from rdc_bench.threats import perceptual

    perceptual._network.cache_clear()
    assert torch.equal(PerceptualThreat(0.5).distance(x, x.flip(0)), before)
