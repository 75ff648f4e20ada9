"""Weights of repositories that hold no cards, from a Hub on the loopback interface."""

import functools
import hashlib
import json

import pytest
import safetensors.torch
import torch
import yaml

import rdc_bench
from rdc_bench.core.errors import UserError
from rdc_bench.evaluation.planning import plan_model
from rdc_bench.hub.pull import pull, pull_checkpoint
from rdc_bench.zoo.loading import load_resolved
from rdc_bench.zoo.reference import parse_reference

CONFIG = {"architecture": "lcnet_050", "num_classes": 10, "pretrained_cfg": {"mean": [0.25], "std": [0.75]}}


@pytest.fixture
def get(hub, tmp_path):
    return functools.partial(pull_checkpoint, endpoint=hub.url, cache_dir=tmp_path / "cache")


def test_config_and_weights_are_fetched_of_one_commit_and_nothing_else(hub, get):
    weights = safetensors.torch.save({"a": torch.ones(2)})
    more = {"pytorch_model.bin": b"x", "train.py": b"1/0"}
    commit = hub.commit("owner/net", {"config.json": b"{}", "model.safetensors": weights, **more})
    pulled = get(parse_reference("hf://owner/net"))
    assert str(pulled.reference) == f"hf://owner/net@{commit}"
    assert (pulled.config.read_bytes(), pulled.weights.read_bytes()) == (b"{}", weights)
    assert not hub.asked(ending="train.py")
    assert not hub.asked(ending="pytorch_model.bin")
    hub.commit("owner/net", {"model.safetensors": b"another"})
    hub.requests.clear()
    assert get(pulled.reference).weights.read_bytes() == weights
    assert get(pulled.reference, local_only=True) == pulled
    assert hub.requests == []


def test_older_repositories_keep_a_pickle(hub, get):
    hub.commit("owner/net", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."})
    assert get(parse_reference("hf://owner/net")).weights.name == "pytorch_model.bin"


def test_a_file_that_arrived_with_other_bytes_is_refused(hub, get):
    hub.commit("owner/net", {"config.json": b"{}", "model.safetensors": safetensors.torch.save({"a": torch.ones(2)})})
    hub.garbled.add("model.safetensors")
    with pytest.raises(UserError, match="damaged"):
        get(parse_reference("hf://owner/net"))


@pytest.mark.parametrize(("files", "lacks"), [({}, "config.json"), ({"config.json": b"{}"}, "model.safetensors")])
def test_a_repository_without_weights_says_what_it_lacks(hub, get, files, lacks):
    hub.commit("owner/net", {"README.md": b"# A", **files})
    with pytest.raises(UserError, match=f"lacks {lacks}"):
        get(parse_reference("hf://owner/net"))


@pytest.fixture
def published(hub, get, monkeypatch):
    """A network of timm whose weights lie on the Hub; returns it, and a function that writes other configurations."""
    reason = "timm is not installed, or its torchvision fits another torch (pip install 'rdc-bench[timm]')"
    timm = pytest.importorskip("timm", reason=reason, exc_type=ImportError)
    monkeypatch.setattr("rdc_bench.libraries.naming.pull_checkpoint", get)
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("lcnet_050", num_classes=10, in_chans=1).eval()

    def write(config):
        content = config if isinstance(config, bytes) else json.dumps(config).encode()
        return hub.commit(
            "owner/net", {"config.json": content, "model.safetensors": safetensors.torch.save(network.state_dict())}
        )

    return network, write


@pytest.mark.parametrize("scheme", ["hf://", "hf-hub:"])
def test_a_network_of_timm_with_weights_and_preprocessing_of_the_hub(published, scheme):
    network, write = published
    commit = write(CONFIG)
    model = rdc_bench.load_model(f"timm:lcnet_050?checkpoint={scheme}owner/net&dataset=fashion-mnist")
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(model(x), network((x - 0.25) / 0.75))
    planned = plan_model(f"timm:lcnet_050?checkpoint={scheme}owner/net&dataset=fashion-mnist")
    assert planned.reference == f"timm:lcnet_050?checkpoint=hf://owner/net@{commit}&dataset=fashion-mnist"
    assert list(planned.weights) == [f"hf://owner/net@{commit}/model.safetensors"]
    assert plan_model(planned.reference).identity == planned.identity


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "architecture": "resnet10t"}, "those of timm:resnet10t"),
        (b"{", "config.json is not timm's"),
        ({**CONFIG, "pretrained_cfg": {"mean": ["a"], "std": [1]}}, "mean"),
        ({**CONFIG, "pretrained_cfg": {"mean": 0.5, "std": [1]}}, "mean"),
    ],
)
def test_a_faulty_configuration_is_one_line(published, config, words):
    published[1](config)
    with pytest.raises(UserError, match=words) as caught:
        rdc_bench.load_model("timm:lcnet_050?checkpoint=hf://owner/net&dataset=fashion-mnist")
    assert "\n" not in str(caught.value)


def test_a_card_on_the_hub_may_name_a_network_of_timm_with_safetensors(hub, published, make_card, make_config, tmp_path):
    network, _ = published
    weights = safetensors.torch.save(network.state_dict())
    beside = {"file": "net.safetensors", "sha256": hashlib.sha256(weights).hexdigest()}
    spec = {"kind": "timm", "architecture": "lcnet_050", "mean": [0.25], "std": [0.75], "weights": beside}

    def pulled(spec):
        card = yaml.safe_dump(make_card("net", spec)).encode()
        hub.commit("owner/card", {"config.json": make_config("net"), "net.yaml": card, spec["weights"]["file"]: weights})
        return pull(parse_reference("hf://owner/card"), endpoint=hub.url, cache_dir=tmp_path / "cache").card

    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(load_resolved(pulled(spec))(x), network((x - 0.25) / 0.75))
    with pytest.raises(UserError, match="no safetensors file"):
        pulled({**spec, "weights": {**beside, "file": "net.pt"}})
