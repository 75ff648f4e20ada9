import pytest
import safetensors.torch
import torch
import yaml

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.card_files import packaged
from rdc_bench.core.files import file_sha256
from rdc_bench.evaluation.profiles import DEFAULT_MODELS
from rdc_bench.networks import SmallResNet
from rdc_bench.zoo.availability import availability
from rdc_bench.zoo.parts import find_card
from rdc_bench.zoo.schema import DenoiserSpec

PACKAGED = sorted(path.stem for path in packaged("models").glob("*.yaml"))
BUNDLED = [name for name in PACKAGED if availability(find_card(name)).state == "bundled"]


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A small classifier with real weights in the working directory; returns a function that rewrites its card."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    torch.manual_seed(0)
    network = SmallResNet(1, 10, widths=(8, 8), blocks=(1, 1))
    safetensors.torch.save_file(network.state_dict(), tmp_path / "models" / "mine.safetensors")

    def write(config=None, sha256=None):
        document = {
            "schema_version": 1,
            "name": "mine",
            "title": "Mine",
            "role": "baseline",
            "dataset": "fashion-mnist",
            "image_shape": [1, 28, 28],
            "num_classes": 10,
            "license": "MIT",
            "source": "a test",
            "model": {
                "kind": "classifier",
                "architecture": "SmallResNet",
                "config": {"in_channels": 1, "num_classes": 10, "widths": [8, 8], "blocks": [1, 1], **(config or {})},
                "weights": {
                    "file": "mine.safetensors",
                    "sha256": sha256 or file_sha256(tmp_path / "models" / "mine.safetensors"),
                },
            },
        }
        (tmp_path / "models" / "mine.yaml").write_text(yaml.safe_dump(document))

    write()
    return write


def test_weights_are_loaded_and_the_card_comes_along(card):
    model = rdc_bench.load_model("mine")
    assert model.card.name == "mine"
    assert not model.training
    x = torch.rand(2, 1, 28, 28, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, 10)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    assert "mine" in rdc_bench.list_models()


def test_truncated_weights_are_refused(card, tmp_path):
    path = tmp_path / "models" / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"mine\.safetensors: SHA-256 differs"):
        rdc_bench.load_model("mine")


def test_a_truncated_file_with_a_matching_hash_is_refused_too(card, tmp_path):
    path = tmp_path / "models" / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    card()
    with pytest.raises(UserError, match="not a readable safetensors file"):
        rdc_bench.load_model("mine")


def test_missing_weights_are_never_random_weights(card, tmp_path):
    (tmp_path / "models" / "mine.safetensors").unlink()
    with pytest.raises(UserError, match="weights are missing"):
        rdc_bench.load_model("mine")


@pytest.mark.parametrize(("config", "message"), [({"width": 3}, "width"), ({"widths": [8, 16]}, "does not fit")])
def test_a_configuration_that_does_not_fit_is_named(card, config, message):
    card(config=config)
    with pytest.raises(UserError, match=message):
        rdc_bench.load_model("mine")


def test_the_default_models_are_bundled():
    assert set(DEFAULT_MODELS["fashion-mnist"]) <= set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_model_classifies(name):
    loaded = find_card(name)
    if isinstance(loaded.card.model, DenoiserSpec):
        with pytest.raises(UserError, match="denoiser"):
            rdc_bench.load_model(name)
        return
    model = rdc_bench.load_model(name)
    x = torch.rand(2, *loaded.card.image_shape, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, loaded.card.num_classes)
    assert torch.isfinite(logits).all()
    (logits[:, 0] - logits[:, 1]).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_weights_of_an_installed_package_are_checked_against_the_card(tmp_path, monkeypatch):
    source = yaml.safe_load((packaged("models") / "standard-cifar10.yaml").read_text())
    source["model"]["weights"]["sha256"] = "0" * 64
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "standard-cifar10.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"model_test\.pt: SHA-256 differs"):
        rdc_bench.load_model("standard-cifar10")
    source["model"]["weights"]["file"] = "../elsewhere.pt"
    (tmp_path / "models" / "standard-cifar10.yaml").write_text(yaml.safe_dump(source))
    with pytest.raises(UserError, match="file"):
        rdc_bench.load_model("standard-cifar10")
