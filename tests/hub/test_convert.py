"""Conversion of foreign checkpoints, from the command line to a model that is loaded again."""

import json
import os
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from rdc_bench.cards import file_sha256, packaged
from rdc_bench.cli import main
from rdc_bench.diffusion import EDMPrecond, VEPrecond, VPPrecond
from rdc_bench.loading import load_denoiser, load_model
from rdc_bench.networks import SmallResNet, SongUNet
from rdc_bench.networks.score_sde import from_score_sde

DDPMPP = {
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [16],
    "dropout": 0.13,
    "augment_dim": 9,
}
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}
ADM = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [16], "use_fp16": True}
SHAPE = {"img_resolution": 32, "img_channels": 3, "label_dim": 10}
NETWORKS = {
    "EDM, DDPM++": (EDMPrecond, {"model_type": "SongUNet", **DDPMPP}),
    "VP, NCSN++": (VPPrecond, {"model_type": "SongUNet", **DDPMPP, **NCSNPP}),
    "VE, NCSN++": (VEPrecond, {"model_type": "SongUNet", **DDPMPP, **NCSNPP}),
    "EDM, ADM": (EDMPrecond, {"model_type": "DhariwalUNet", **ADM}),
}
RESNET = {"in_channels": 3, "num_classes": 10, "widths": [8, 8], "blocks": [1, 1]}


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return network.eval().requires_grad_(False)


@pytest.fixture
def witness(tmp_path, monkeypatch):
    """A file that appears when source code in an EDM pickle is executed, as ``torch_utils.persistence`` does it."""

    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})
        return meta

    package, persistence = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)
    return tmp_path / "executed"


class Persistent:
    """Pickles as an object of a persistent class does: its class's source code and name, and its attributes."""

    def __init__(self, kind: str, state: dict, source: str) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": kind, "state": state}

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,), None


def persistent(module: nn.Module, source: str, **arguments: object):
    """A module as NVlabs' networks store theirs: every module persistent but for the containers, arguments recorded."""
    inner = {name: persistent(child, source) for name, child in module.named_children()}
    if isinstance(module, nn.ModuleDict):
        container = nn.ModuleDict()
        container._modules.update(inner)
        return container
    state = vars(nn.Module()) | {
        "training": False,
        "_parameters": module._parameters,
        "_buffers": module._buffers,
        "_non_persistent_buffers_set": module._non_persistent_buffers_set,
        "_modules": {**inner, "absent": None},
        "skip_scale": np.sqrt(0.5),
        "resample_filter_taps": [1, 1],
        "_init_args": (),
        "_init_kwargs": {"dropout": np.float64(0.13), **arguments},
    }
    return Persistent(type(module).__name__, state, source)


def edm_pickle(path: Path, network: nn.Module, config: dict, witness: Path, **changes: object) -> Path:
    """A training snapshot as NVlabs' ``training_loop`` writes it."""
    source = f"open({str(witness)!r}, 'w').close()"
    loss = Persistent("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "_init_args": (), "_init_kwargs": {}}, source)
    net = persistent(network, source, **config)
    net.meta["state"]["_init_kwargs"] = dict(config)
    net.meta |= changes
    path.write_bytes(
        pickle.dumps({"ema": net, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": {"path": "cifar10.zip"}})
    )
    return path


def invoke(capsys, *args):
    before, sys.argv = sys.argv, ["rdc-bench", "models", "convert", *map(str, args)]
    with pytest.raises(SystemExit) as stopped:
        main()
    sys.argv = before
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def refused(capsys, tmp_path, *args) -> str:
    """The one line that a refused conversion prints. Nothing may have been written."""
    before = sorted(tmp_path.rglob("*"))
    code, out, err = invoke(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert sorted(tmp_path.rglob("*")) == before
    return err.removeprefix("error: ")


def same(state: dict, expected: dict) -> bool:
    return state.keys() == expected.keys() and all(
        state[key].dtype == expected[key].dtype and torch.equal(state[key], expected[key]) for key in expected
    )


@pytest.mark.parametrize(("cls", "config"), NETWORKS.values(), ids=NETWORKS)
def test_edm_pickle(capsys, tmp_path, witness, cls, config) -> None:
    config = SHAPE | config
    network = randomised(cls(**config))
    source = edm_pickle(tmp_path / "edm-cifar10.pkl", network, config, witness)
    dest = tmp_path / "models" / "edm-cifar10"
    options = ("--dataset", "cifar10", "--license", "CC BY-NC-SA 4.0", "--source", "https://example.org/edm")
    code, out, err = invoke(capsys, source, dest, *options)
    assert (code, out, err) == (0, f"{dest}/edm-cifar10.yaml\n", "")
    assert not witness.exists()
    assert {path.name for path in dest.iterdir()} == {"model.safetensors", "config.json", "edm-cifar10.yaml"}

    assert same(safetensors.torch.load_file(dest / "model.safetensors"), network.state_dict())
    described = json.loads((dest / "config.json").read_text())
    assert (described["architecture"], described["config"]) == (cls.__name__, config)
    assert described["converted_from"] == {"file": source.name, "sha256": file_sha256(source)}
    assert described["weights"]["sha256"] == file_sha256(dest / "model.safetensors")

    loaded = load_denoiser(str(dest / "edm-cifar10.yaml"))
    assert type(loaded) is cls
    assert same(loaded.state_dict(), network.state_dict())
    z, sigma = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5, 2.0])
    label = torch.tensor([3, 7])
    # Loaded weights lie in memory channels last, so sums are rounded otherwise.
    torch.testing.assert_close(loaded(z, sigma, label), network(z, sigma, label), atol=1e-3, rtol=1e-3)
    card = yaml.safe_load((dest / "edm-cifar10.yaml").read_text())
    assert (card["license"], card["dataset"], card["image_shape"], card["num_classes"]) == (
        options[3],
        "cifar10",
        [3, 32, 32],
        10,
    )
    assert card["source"] == f"{options[5]}; converted from edm-cifar10.pkl, SHA-256 {file_sha256(source)}"

    pickle.loads(source.read_bytes())
    assert witness.exists(), "reading the pickle as usual would have executed nothing either"


def test_arguments_without_names_and_defaults_of_theirs(capsys, tmp_path, witness) -> None:
    """NVlabs' EDMPrecond is ADM by default, and its recorded arguments may be positional, or NumPy's numbers."""
    config = SHAPE | {"model_type": "DhariwalUNet"} | ADM
    network = randomised(EDMPrecond(**config))
    source = edm_pickle(tmp_path / "net.pkl", network, {}, witness)
    named = ADM | {"dropout": np.float64(0.25), "sigma_max": float("inf")}
    net = persistent(network, "", **named)
    net.meta["state"] |= {"_init_args": (32, 3, 10), "_init_kwargs": named}
    source.write_bytes(pickle.dumps({"ema": net}))
    assert invoke(capsys, source, tmp_path / "net", "--dataset", "cifar10")[0] == 0
    described = json.loads((tmp_path / "net" / "config.json").read_text())
    assert described["config"] == config | {"dropout": 0.25}


def test_an_unconditional_network_takes_the_number_of_classes_from_the_dataset(capsys, tmp_path, witness) -> None:
    config = SHAPE | {"model_type": "SongUNet", "label_dim": 0} | DDPMPP
    source = edm_pickle(tmp_path / "net.pkl", EDMPrecond(**config), config, witness)
    assert invoke(capsys, source, tmp_path / "net", "--dataset", "cifar10")[0] == 0
    assert yaml.safe_load((tmp_path / "net" / "net.yaml").read_text())["num_classes"] == 10
    assert "does not say how many" in refused(capsys, tmp_path, source, tmp_path / "other", "--dataset", "image-folder")


def save_stream(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_safetensors(value: dict, path: Path) -> None:
    safetensors.torch.save_file(value, path)


@pytest.mark.parametrize("save", [torch.save, save_stream], ids=["zip", "stream"])
@pytest.mark.parametrize("place", [None, "state_dict", "model", "ema", "net"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "DataParallel"])
def test_state_dict(capsys, tmp_path, save, place, wrapped) -> None:
    network = randomised(SmallResNet(**RESNET))
    state = (nn.DataParallel(network) if wrapped else network).state_dict()
    source = tmp_path / "net.pth"
    save({place: state, "epoch": 3, "accuracy": np.float64(0.5)} if place else state, source)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(RESNET))
    options = ("--architecture", "SmallResNet", "--config", config, "--dataset", "cifar10", "--name", "my-resnet")
    code, out, err = invoke(capsys, source, tmp_path / "dest", *options)
    assert (code, out, err) == (0, f"{tmp_path}/dest/my-resnet.yaml\n", "")
    loaded = load_model(out.strip())
    assert same(loaded.state_dict(), network.state_dict())


def test_the_average_is_preferred_to_the_weights(capsys, tmp_path) -> None:
    networks = {place: SmallResNet(**RESNET) for place in ("model", "ema")}
    torch.save({place: network.state_dict() for place, network in networks.items()}, tmp_path / "net.pt")
    (tmp_path / "config.json").write_text(json.dumps(RESNET))
    options = ("--architecture", "SmallResNet", "--config", tmp_path / "config.json", "--dataset", "cifar10")
    assert invoke(capsys, tmp_path / "net.pt", tmp_path / "dest", *options)[0] == 0
    stored = safetensors.torch.load_file(tmp_path / "dest" / "model.safetensors")
    assert same(stored, networks["ema"].state_dict())


@pytest.mark.parametrize("save", [torch.save, save_safetensors], ids=["pt", "safetensors"])
@pytest.mark.parametrize("name", ["standard-fashion-mnist", "multihead-fashion-mnist"])
def test_like_another_card(capsys, tmp_path, save, name) -> None:
    state = safetensors.torch.load_file(packaged("models") / f"{name}.safetensors")
    save(state, tmp_path / "weights")
    code, out, _ = invoke(capsys, tmp_path / "weights", tmp_path / "copy", "--like", name)
    assert code == 0
    load = load_model if name.startswith("standard") else load_denoiser
    assert same(load(out.strip()).state_dict(), state)
    assert yaml.safe_load(Path(out.strip()).read_text())["dataset"] == "fashion-mnist"


def test_score_sde(capsys, tmp_path) -> None:
    """The RDC authors' multi-head network, under the names of the code that it was made with."""
    shapes = json.loads((Path(__file__).parents[1] / "networks" / "data" / "score_sde_keys.json").read_text())["authors"]
    generator = torch.Generator().manual_seed(0)
    state = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    network = {"model_channels": 16, "channel_mult": [1, 2, 2], "num_blocks": 1, "attn_resolutions": [8]}
    config = {"img_resolution": 16, "img_channels": 3, "label_dim": 3, "heads": 3, "model_type": "SongUNet", **network}
    torch.save({"model": {f"module.{key}": tensor for key, tensor in state.items()}, "step": 1}, tmp_path / "net.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ("--config", tmp_path / "config.yaml", "--dataset", "image-folder")
    code, out, _ = invoke(capsys, tmp_path / "net.pth", tmp_path / "dest", "--architecture", "VPPrecond", *options)
    assert code == 0
    loaded = load_denoiser(out.strip())
    expected = from_score_sde(state, SongUNet(16, 3, 9, **network))
    assert same(loaded.model.state_dict(), expected)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"num_blocks": 2}))
    args = (tmp_path / "net.pth", tmp_path / "other", "--architecture", "VPPrecond", *options)
    assert "the checkpoint has no 'all_modules" in refused(capsys, tmp_path, *args)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RESNET))
    args = (tmp_path / "net.pth", tmp_path / "other", "--architecture", "SmallResNet", *options)
    assert "score_sde's names" in refused(capsys, tmp_path, *args)


def test_tensors_that_share_memory(capsys, tmp_path) -> None:
    network = randomised(SmallResNet(**RESNET))
    state = network.state_dict()
    flat = torch.cat([tensor.flatten() for tensor in state.values() if tensor.is_floating_point()])
    at = 0
    for key, tensor in state.items():
        if tensor.is_floating_point():
            state[key] = flat[at : at + tensor.numel()].view(tensor.shape)
            at += tensor.numel()
    torch.save(dict(state), tmp_path / "net.pt")
    (tmp_path / "config.json").write_text(json.dumps(RESNET))
    options = ("--architecture", "SmallResNet", "--config", tmp_path / "config.json", "--dataset", "cifar10")
    assert invoke(capsys, tmp_path / "net.pt", tmp_path / "dest", *options)[0] == 0
    assert same(load_model(str(tmp_path / "dest" / "dest.yaml")).state_dict(), network.state_dict())


# Bad input: one line, exit code 2, nothing written.


@pytest.fixture
def resnet(tmp_path):
    """Options that describe the state dict of a small ResNet, and that state dict."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RESNET))
    state = SmallResNet(**RESNET).state_dict()
    options = ["--architecture", "SmallResNet", "--config", tmp_path / "config.yaml", "--dataset", "cifar10"]
    return options, state, tmp_path / "net.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"classifier.wieght": s.pop("classifier.weight")},
            "unknown key: 'classifier.wieght' (nearest: 'classifier.weight'); missing key: 'classifier.weight' (nearest: "
            "'classifier.wieght')",
        ),
        (lambda s: {key: value for key, value in s.items() if "norm." not in key}, "5 missing keys, first 'norm.bias'"),
        (lambda s: s | {"classifier.bias": torch.zeros(3)}, "wrong shape: 'classifier.bias' is [3], the network has [10]"),
        (lambda s: s | {"classifier.bias": torch.zeros(10).int()}, "wrong type: 'classifier.bias' is torch.int32"),
        (lambda s: s | {"../../classifier.weight": torch.zeros(1)}, "unknown key: '../../classifier.weight'"),
        (lambda s: s | {"x\ny": torch.zeros(1)}, r"unknown key: 'x\ny'"),
        (lambda s: s | {3: torch.zeros(1)}, "a tensor's key is not text"),
        (
            lambda s: {"optimizer": {}, "epoch": 1},
            "holds a dict of 'optimizer', 'epoch'; what is looked for is a dict of tensors",
        ),
        (lambda s: [1, 2], "holds a list; what is looked for"),
        (lambda s: {}, "holds a dict; what is looked for"),
    ],
    ids=range(10),
)
def test_tensors_that_are_not_the_networks(capsys, tmp_path, resnet, change, message) -> None:
    options, state, source = resnet
    torch.save(change(dict(state)), source)
    assert message in refused(capsys, tmp_path, source, tmp_path / "dest", *options)


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("os.system", {}, "unknown architecture 'os.system'"),
        ("SmalResNet", {}, "Did you mean 'SmallResNet'"),
        ("SongUNet", {}, "SongUNet is a raw network"),
        ("EDMPrecond", SHAPE | {"model_type": "Popen"}, "unknown network 'Popen'"),
        ("EDMPrecond", SHAPE | {"model_type": ["SongUNet"]}, "unknown network"),
        ("EDMPrecond", SHAPE | {"model_type": "SmallResNet"}, "SmallResNet is a classifier"),
        ("EDMPrecond", SHAPE | {"model_type": "SongUNet", "in_channels": 3}, "unknown argument 'in_channels'"),
        ("EDMPrecond", {"model_type": "SongUNet"}, "the configuration does not fit EDMPrecond"),
        ("SmallResNet", RESNET | {"width": [8, 8]}, "unknown argument 'width'. Did you mean 'widths'?"),
        ("SmallResNet", RESNET | {"widths": "many"}, "the configuration does not fit SmallResNet"),
        ("SmallResNet", RESNET | {"in_channels": -1}, "the configuration does not fit SmallResNet"),
        ("SmallResNet", RESNET | {"mean": [float("nan")]}, "an argument of the network is a float"),
        ("SmallResNet", RESNET | {"num_classes": 100}, "wrong shape"),
        ("SmallResNet", [1], "a mapping of the network's arguments, not list"),
        ("SmallResNet", "text", "a mapping of the network's arguments, not str"),
    ],
    ids=range(15),
)
def test_configurations_that_ask_for_something_else(capsys, tmp_path, resnet, architecture, config, message) -> None:
    _, state, source = resnet
    torch.save(state, source)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    options = ("--architecture", architecture, "--config", tmp_path / "config.yaml", "--dataset", "cifar10")
    assert message in refused(capsys, tmp_path, source, tmp_path / "dest", *options)


def test_a_configuration_is_data(capsys, tmp_path, resnet) -> None:
    options, state, source = resnet
    torch.save(state, source)
    ran = tmp_path / "ran"
    (tmp_path / "config.yaml").write_text(f"widths: !!python/object/apply:os.system ['touch {ran}']")
    assert "neither YAML nor JSON" in refused(capsys, tmp_path, source, tmp_path / "dest", *options)
    (tmp_path / "config.yaml").unlink()
    assert "cannot be read" in refused(capsys, tmp_path, source, tmp_path / "dest", *options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "iDDPMPrecond"}, "unknown architecture 'iDDPMPrecond'. Did you mean"),
        ({"class_name": "os.system"}, "unknown architecture 'os.system'"),
        ({"type": "function"}, "does not say what class it is of"),
        ({"state": None}, "a module without attributes"),
        ({"state": {"_init_args": None, "_init_kwargs": None, "_modules": {}}}, "does not say what arguments it was made with"),
    ],
    ids=range(5),
)
def test_edm_pickles_of_something_else(capsys, tmp_path, witness, changes, message) -> None:
    config = SHAPE | {"model_type": "SongUNet"} | DDPMPP
    source = edm_pickle(tmp_path / "net.pkl", EDMPrecond(**config), config, witness, **changes)
    assert message in refused(capsys, tmp_path, source, tmp_path / "dest", "--dataset", "cifar10")
    assert not witness.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sampler": os.getcwd}, "asks for posix.getcwd"),
        ({"model_chanels": 8}, "unknown argument 'model_chanels'. Did you mean 'model_channels'"),
        ({"dropout": float("nan")}, "an argument of the network is a float"),
        ({"dropout": {1, 2}}, "an argument of the network is a set"),
        ({"model_channels": 16}, "wrong shapes"),
        ({"num_blocks": 2}, "missing keys"),
    ],
    ids=range(6),
)
def test_edm_pickles_whose_arguments_are_not_the_networks(capsys, tmp_path, witness, config, message) -> None:
    right = SHAPE | {"model_type": "SongUNet"} | DDPMPP
    source = edm_pickle(tmp_path / "net.pkl", EDMPrecond(**right), right | config, witness)
    assert message in refused(capsys, tmp_path, source, tmp_path / "dest", "--dataset", "cifar10")


def test_modules_that_contain_themselves(capsys, tmp_path, witness) -> None:
    config = SHAPE | {"model_type": "SongUNet"} | DDPMPP
    net = persistent(EDMPrecond(**config), "")
    net.meta["state"]["_init_kwargs"] = config
    loop = nn.ModuleDict()
    loop._modules |= {"a": loop, "b": loop}
    net.meta["state"]["_modules"]["loop"] = loop
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"ema": net}))
    assert "nested without end" in refused(capsys, tmp_path, tmp_path / "net.pkl", tmp_path / "dest", "--dataset", "cifar10")


def test_damaged_and_foreign_files(capsys, tmp_path, resnet) -> None:
    options, state, source = resnet
    torch.save(state, source)
    whole = source.read_bytes()
    source.write_bytes(whole[:-100])
    assert "refused" in refused(capsys, tmp_path, source, tmp_path / "dest", *options)
    source.write_bytes(b"GIF89a")
    assert "not a checkpoint" in refused(capsys, tmp_path, source, tmp_path / "dest", *options)
    assert "cannot be read" in refused(capsys, tmp_path, tmp_path / "missing.pt", tmp_path / "dest", *options)
    weights = tmp_path / "net.safetensors"
    for content in (struct.pack("<Q", 2 * 10**9) + b"{" + bytes(100), struct.pack("<Q", 2**63), b"", b"GIF89a" + bytes(20)):
        weights.write_bytes(content)
        assert "not a readable safetensors file" in refused(capsys, tmp_path, weights, tmp_path / "dest", *options)
    weights.write_bytes(pickle.dumps(os.getcwd))
    assert "asks for posix.getcwd" in refused(capsys, tmp_path, weights, tmp_path / "dest", *options)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--name", "../../evil"), "'../../evil' cannot be a card's name"),
        (("--name", "/etc/passwd"), "cannot be a card's name"),
        (("--name", "My Model"), "cannot be a card's name"),
        (("--dataset", "cifar-10"), "unknown dataset 'cifar-10'. Did you mean 'cifar10'"),
        (("--dataset", "cifar100"), "tells 10 classes apart, cifar100 has 100"),
        (("--dataset", "image-folder"), "the shape of image-folder's images is not known"),
        (("--like", "standard-fashion-mnist"), "leave out --architecture and --config"),
    ],
    ids=range(7),
)
def test_options_that_do_not_fit(capsys, tmp_path, resnet, more, message) -> None:
    options, state, source = resnet
    torch.save(state, source)
    assert message in refused(capsys, tmp_path, source, tmp_path / "dest", *options, *more)


def test_options_that_are_missing(capsys, tmp_path, resnet) -> None:
    options, state, source = resnet
    torch.save(state, source)
    assert "give --architecture and --config" in refused(capsys, tmp_path, source, tmp_path / "dest", *options[4:])
    assert "give --dataset" in refused(capsys, tmp_path, source, tmp_path / "dest", *options[:4])
    like = ("--like", "rdc-fashion-mnist")
    assert "a card of weights is needed" in refused(capsys, tmp_path, source, tmp_path / "dest", *like)


def test_an_edm_pickle_says_itself_what_it_is(capsys, tmp_path, witness) -> None:
    config = SHAPE | {"model_type": "SongUNet"} | DDPMPP
    source = edm_pickle(tmp_path / "net.pkl", EDMPrecond(**config), config, witness)
    options = ("--dataset", "cifar10", "--architecture", "VPPrecond")
    assert "says itself that its network is EDMPrecond" in refused(capsys, tmp_path, source, tmp_path / "dest", *options)
    assert "images of 3×32×32" in refused(capsys, tmp_path, source, tmp_path / "dest", "--dataset", "fashion-mnist")


def test_a_destination_is_replaced_only_if_a_conversion_made_it(capsys, tmp_path, resnet) -> None:
    options, state, source = resnet
    torch.save(state, source)
    dest = tmp_path / "dest"
    dest.mkdir()
    assert invoke(capsys, source, dest, *options)[0] == 0
    torch.save({key: tensor + 1 for key, tensor in state.items()}, source)
    assert invoke(capsys, source, dest, *options, "--name", "second")[0] == 0
    assert {path.name for path in dest.iterdir()} == {"model.safetensors", "config.json", "second.yaml"}
    assert load_model(str(dest / "second.yaml")).classifier.bias.equal(state["classifier.bias"] + 1)
    (dest / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in dest.iterdir()}
    assert "no earlier conversion" in refused(capsys, tmp_path, source, dest, *options)
    assert {path: path.read_bytes() for path in dest.iterdir()} == before
    assert "is a file" in refused(capsys, tmp_path, source, source, *options, "--name", "x")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("model.safetensors", "config.json", "foreign.yaml"):
        (foreign / name).write_text("{}")
    assert "no earlier conversion" in refused(capsys, tmp_path, source, foreign, *options)


@pytest.mark.parametrize("syncs", [0, 1, 4])  # before anything is read, and while it is written
def test_a_full_disk_leaves_the_earlier_conversion(capsys, tmp_path, resnet, monkeypatch, syncs) -> None:
    options, state, source = resnet
    torch.save(state, source)
    dest = tmp_path / "dest"
    assert invoke(capsys, source, dest, *options)[0] == 0
    before = {path: path.read_bytes() for path in dest.iterdir()}

    real, handles = os.fsync, []

    def full(handle: int) -> None:
        handles.append(handle)
        if len(handles) > syncs:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert f"{dest if syncs else tmp_path}: no space is left" in refused(capsys, tmp_path, source, dest, *options)
    assert {path: path.read_bytes() for path in dest.iterdir()} == before
