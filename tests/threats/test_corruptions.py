from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.randomness import generator
from rdc_bench.threats import CorruptionsThreat, make_threat
from rdc_bench.threats.corruptions import DRAWS, KINDS, corrupt, require_library


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of corruptions that add noise of a size that grows with the severity; ``glass_blur`` draws from a seed."""

    def noise(image: np.ndarray, severity: int, draws: np.ndarray) -> np.ndarray:
        return np.clip(image + 4 * severity * draws, 0, 255)

    def from_global(image: np.ndarray, severity: int = 1) -> np.ndarray:
        return noise(image, severity, np.random.randn(*image.shape))

    def from_seed(image: np.ndarray, severity: int = 1, seed: int | None = None) -> np.ndarray:
        return noise(image, severity, np.random.default_rng(seed).standard_normal(image.shape))

    library = types.ModuleType("imagecorruptions")
    library.corruption_dict = {kind: from_seed if kind == "glass_blur" else from_global for kind in KINDS}  # type: ignore[attr-defined]

    def call(image: np.ndarray, severity: int, name: str, **options: int) -> np.ndarray:
        assert image.shape[2] == 3
        assert min(image.shape[:2]) >= 32
        return np.uint8(library.corruption_dict[name](image, severity, **options))

    library.corrupt = call  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imagecorruptions", library)


@pytest.fixture
def real() -> None:
    pytest.importorskip("imagecorruptions")


@pytest.fixture(params=["stand_in", "real"])
def library(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(request.param)


def images(channels: int, side: int = 12) -> Tensor:
    return (torch.rand(2, channels, side, side + 2, generator=generator("images", channels)) * 255).round() / 255


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", ["gaussian_noise", "glass_blur", "impulse_noise", "frost"])
def test_a_version_depends_on_its_image_and_number_alone(channels: int, kind: str) -> None:
    x = images(channels)
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    together = corrupt(x, kind, 3, 0)
    assert np.random.get_state()[1].tolist() == state
    assert together.shape == x.shape
    assert together.dtype == x.dtype
    assert ((together >= 0) & (together <= 1)).all()
    np.random.seed(6)
    assert torch.equal(corrupt(x.flip(0), kind, 3, 0).flip(0), together)
    assert torch.equal(corrupt(x[1:], kind, 3, 0), together[1:])
    assert not torch.equal(corrupt(x, kind, 3, 1), together)
    assert not torch.equal(corrupt(x, kind, 4, 0), together)


@pytest.mark.usefixtures("stand_in")
def test_membership_makes_the_versions_again() -> None:
    x, threat = images(1), CorruptionsThreat(2)
    for kind, severity, draw in ((KINDS[0], 1, 0), (KINDS[4], 2, DRAWS - 1), (KINDS[-1], 2, 1)):
        version = corrupt(x, kind, severity, draw)
        assert threat.contains(x, version).all()
        assert threat.distance(x, version).tolist() == [severity, severity]
        other = version.clone()
        other[0, 0, 3, 3] += 1 / 255 if other[0, 0, 3, 3] < 0.5 else -1 / 255
        assert threat.contains(x, other).tolist() == [False, True]
        assert threat.distance(x, other)[0].isinf()
        assert torch.equal(threat.project(x, other), version)
    beyond = corrupt(x, KINDS[3], 3, 0)
    assert threat.distance(x, beyond).tolist() == [3, 3]
    assert not threat.contains(x, beyond).any()
    assert not threat.contains(x, corrupt(x, KINDS[3], 2, DRAWS)).any()
    assert threat.distance(x, x).tolist() == [0, 0]
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    assert threat.contains(x, broken).tolist() == [False, True]


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_the_librarys_own(channels: int) -> None:
    library = require_library()
    x = images(channels, 40)
    pixels = (x[0] * 255).round().to(torch.uint8).numpy().transpose(1, 2, 0)
    for kind in KINDS:
        assert kind in library.get_corruption_names("common")
    for kind in ("contrast", "pixelate", "jpeg_compression", "brightness"):  # nothing in them is random
        expected = library.corrupt(pixels, 4, kind)[..., :channels].transpose(2, 0, 1)
        assert np.array_equal((corrupt(x, kind, 4, 0)[0] * 255).round().numpy(), expected)


@pytest.mark.usefixtures("stand_in")
def test_severities() -> None:
    assert make_threat("corruptions", "5", (3, 32, 32))[0].eps == 5
    with pytest.raises(UserError, match=r"severities 1 to 5, not 2\.5"):
        make_threat("corruptions", "2.5", (3, 32, 32))
    with pytest.raises(UserError, match="larger than 5"):
        make_threat("corruptions", "6", (3, 32, 32))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UserError, match=r"pip install 'rdc-bench\[corruptions\]'") as caught:
        make_threat("corruptions", None, (3, 32, 32))
    assert "\n" not in str(caught.value)
