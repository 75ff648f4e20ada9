"""Our models where RobustBench looks for models."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch

import rdc_bench
from rdc_bench import UserError
from rdc_bench.data import load_dataset

SHAPE = {"image_shape": (3, 32, 32), "num_classes": 10}


@pytest.fixture
def robustbench(plugin: ModuleType) -> ModuleType:
    import robustbench

    return robustbench


@pytest.fixture
def offered(registered, plugin: ModuleType, tiny_rdc) -> str:
    """The tiny RDC, offered to RobustBench."""
    rdc_bench.model("tiny-rdc", dataset="cifar10", **SHAPE)(tiny_rdc)
    plugin.register_models()
    return "tiny-rdc"


@pytest.fixture
def local(plugin: ModuleType, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RobustBench reads the pictures for CIFAR-10."""
    from robustbench.data import _clean_dataset_loaders
    from robustbench.model_zoo.enums import BenchmarkDataset

    monkeypatch.setitem(_clean_dataset_loaders, BenchmarkDataset.cifar_10, None)  # restored afterwards
    plugin.use_local_cifar10(pictures)
    return pictures


def test_noise_is_fixed_there_and_not_here(offered: str, robustbench: ModuleType, pictures: Path) -> None:
    x = load_dataset("cifar10", "test", 4, data_dir=pictures).images
    here = rdc_bench.load_model(offered)
    there = robustbench.utils.load_model(offered, dataset="cifar10", threat_model="Linf")
    assert (here.stochastic, there.stochastic) == (True, False)
    assert not torch.equal(here(x), here(x))
    assert torch.equal(there(x), there(x))
    torch.testing.assert_close(there(x)[2:], there(x[2:]))  # nor does an image's noise depend on its batch
    assert not there.training


def test_benchmark_on_the_rdc(offered: str, robustbench: ModuleType, local: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = robustbench.utils.load_model(offered, dataset="cifar10", threat_model="Linf")
    clean, robust = robustbench.benchmark(model, n_examples=16, dataset="cifar10", threat_model="Linf", eps=8 / 255)
    labels = load_dataset("cifar10", "test", 16, data_dir=local)
    assert clean == (model(labels.images).argmax(dim=1) == labels.labels).double().mean() >= 0.9
    assert robust < clean / 2
    said = capsys.readouterr().out
    assert "randomized defense" not in said
    assert "dynamic defense" in said  # the optimisation loop, which RobustBench's rules exclude


@pytest.mark.parametrize("part", ["whole", "classifier"])
def test_the_optimisation_loop_alone_is_called_dynamic(plugin: ModuleType, tiny_rdc, part: str) -> None:
    from pyautoattack import checks

    model = plugin.fixed_noise(tiny_rdc())
    x = torch.rand(2, 3, 32, 32)
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        checks.check_dynamic(model if part == "whole" else model.classifier, x)
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    assert any("dynamic" in str(warning.message) for warning in said) is (part == "whole")


def test_every_threat_model_and_form_of_name(offered: str, robustbench: ModuleType) -> None:
    for name, threat in (("tiny-rdc", "L2"), ("Tiny_RDC", "corruptions"), ("tiny_rdc", "corruptions_3d")):
        assert robustbench.utils.load_model(name, threat_model=threat).likelihood_maximization.noise == "fixed"


def test_another_name(offered: str, plugin: ModuleType, robustbench: ModuleType) -> None:
    plugin.register("Chen2024Robust_RDC", offered)
    plugin.register("Chen2024Robust_RDC", offered)
    assert robustbench.utils.load_model("Chen2024Robust_RDC").card.name == offered


def test_names_and_datasets_that_do_not_fit(offered: str, registered, plugin: ModuleType) -> None:
    registered.model("clothes", lambda: registered.toy())
    rdc_bench.model("other", dataset="cifar10", **SHAPE)(lambda: registered.toy())
    with pytest.raises(UserError, match="RobustBench dataset 'fashion-mnist'"):
        plugin.register("Doe2024Clothes", "clothes")
    with pytest.raises(UserError, match="registered already"):
        plugin.register("Tiny_RDC", "other")
    with pytest.raises(UserError, match="registered already"):  # RobustBench's own, through timm
        plugin.register("Debenedetti2022Light_XCiT-S12", "other")
    with pytest.raises(UserError, match="letters, digits"):
        plugin.register("a.b", "other")
    with pytest.raises(UserError, match=r"unknown model 'tiny-rcd'.*'tiny-rdc'"):
        plugin.register("x", "tiny-rcd")


def test_registering_tells_what_is_new(registered, plugin: ModuleType) -> None:
    rdc_bench.model("late", dataset="cifar10", **SHAPE)(lambda: registered.toy())
    rdc_bench.model("not.this", dataset="cifar10", **SHAPE)(lambda: registered.toy())
    rdc_bench.model("nor-this", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10)(lambda: registered.toy())
    assert plugin.register_models() == ["late"]
    assert plugin.register_models() == []


def test_local_images_are_those_of_our_own_loader(local: Path) -> None:
    from robustbench.data import load_clean_dataset
    from robustbench.model_zoo.enums import BenchmarkDataset
    from torchvision import transforms

    expected = load_dataset("cifar10", "test", 5, data_dir=local)
    images, labels = load_clean_dataset(BenchmarkDataset.cifar_10, 5, "elsewhere", transforms.ToTensor())
    assert torch.equal(images, expected.images)
    assert torch.equal(labels, expected.labels)
    half = transforms.Compose([transforms.Resize(16), transforms.ToTensor()])
    assert load_clean_dataset(BenchmarkDataset.cifar_10, None, "elsewhere", half)[0].shape == (16, 3, 16, 16)


def test_missing_images_are_said_at_once(plugin: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cifar10"):
        plugin.use_local_cifar10(tmp_path)


@pytest.mark.slow
def test_benchmark_on_the_standard_model(
    plugin: ModuleType, robustbench: ModuleType, real_cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ResNet-18 that pyautoattack carries, on real images: 94 % of the first 100 are right, none of 16 under attack."""
    from robustbench.data import _clean_dataset_loaders
    from robustbench.model_zoo.enums import BenchmarkDataset

    monkeypatch.setitem(_clean_dataset_loaders, BenchmarkDataset.cifar_10, None)
    plugin.use_local_cifar10(real_cifar10)
    model = robustbench.utils.load_model("standard-cifar10", dataset="cifar10", threat_model="Linf")
    images, labels = robustbench.data.load_clean_dataset(BenchmarkDataset.cifar_10, 100, "", lambda picture: _tensor(picture))
    assert robustbench.utils.clean_accuracy(model, images, labels) == pytest.approx(0.94)
    clean, robust = robustbench.benchmark(model, n_examples=16, dataset="cifar10", threat_model="Linf", eps=8 / 255)
    assert clean > 0.8
    assert robust == 0.0


def _tensor(picture) -> torch.Tensor:
    from torchvision.transforms.functional import to_tensor

    return to_tensor(picture)
