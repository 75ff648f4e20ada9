import pickle

import pytest
import torch
import torch.nn.functional as F
import yaml

import rdc_bench
from rdc_bench import UserError
from rdc_bench.core.files import file_sha256

GREY = "mean=0.25&std=0.5"
NAME = f"timm:lcnet_050?checkpoint=my.safetensors&dataset=fashion-mnist&{GREY}"


def refused(name):
    with pytest.raises(UserError) as caught:
        rdc_bench.load_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_in_the_unit_range_become_the_network_s_logits(trained):
    network = trained()
    model = rdc_bench.load_model(NAME)
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(model(x), network((x - 0.25) / 0.5))
    assert not model.training
    assert (model.card.name, model.card.dataset, model.card.num_classes) == ("timm-lcnet_050-my", "fashion-mnist", 10)


def test_the_library_s_own_preprocessing_is_the_default(trained):
    network = trained("resnet10t", "ten.pt", in_chans=3)
    model = rdc_bench.load_model("timm:resnet10t?checkpoint=ten.pt&dataset=cifar10")
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(x), network((x - mean) / std))


def test_torchvision_s_transforms_are_its_preprocessing(torchvision, here):
    weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    network = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=10).eval()
    torch.save(network.state_dict(), here / "net.pth")
    model = rdc_bench.load_model("torchvision:shufflenet_v2_x0_5?checkpoint=net.pth&dataset=cifar10&resize=48")
    x = torch.rand(2, 3, 32, 32)
    theirs = weights.transforms(resize_size=48, crop_size=48)
    torch.testing.assert_close(model(x), network(theirs(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_is_differentiable_and_only_done_when_asked_for(trained, interpolation):
    network = trained()
    model = rdc_bench.load_model(f"{NAME}&resize=56&interpolation={interpolation}").double()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64, requires_grad=True)
    larger = F.interpolate(x, (56, 56), mode=interpolation, align_corners=False)
    torch.testing.assert_close(model(x), network.double()((larger - 0.25) / 0.5))
    direction = torch.randn_like(x)
    model(x)[0, 0].backward()
    h = 1e-6
    slope = (model(x + h * direction) - model(x - h * direction))[0, 0] / (2 * h)
    torch.testing.assert_close((x.grad * direction).sum(), slope, rtol=1e-4, atol=1e-6)


def test_a_network_for_images_of_one_size_is_made_for_the_size_that_it_will_see(trained):
    name = f"timm:vit_tiny_patch16_224?dataset=fashion-mnist&{GREY}"
    trained("vit_tiny_patch16_224", "small.pt", img_size=32)
    trained("vit_tiny_patch16_224", "large.pt")  # for 224 pixels
    for file, size in (("small.pt", 32), ("large.pt", 224)):
        assert rdc_bench.load_model(f"{name}&checkpoint={file}&resize={size}")(torch.rand(1, 1, 28, 28)).shape == (1, 10)
        assert "wrong shape: 'pos_embed'" in refused(f"{name}&checkpoint={file}&resize=64")


@pytest.mark.parametrize("form", ["plain", "trainer", "parallel", "without counters"])
def test_checkpoints_as_people_keep_them(trained, here, form):
    state = trained().state_dict()
    kept = {
        "plain": state,
        "trainer": {"state_dict": state, "epoch": 3},
        "parallel": {f"module.{key}": value for key, value in state.items()},
        "without counters": {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    }[form]
    torch.save(kept, here / "kept.pth")
    x = torch.rand(2, 1, 28, 28)
    kept_model = rdc_bench.load_model(NAME.replace("my.safetensors", "kept.pth"))
    torch.testing.assert_close(kept_model(x), rdc_bench.load_model(NAME)(x))


def test_nothing_in_a_checkpoint_is_executed(trained, here):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(here / 'executed')!r}, 'w')",))

    trained()
    for file, save in (("evil.pt", torch.save), ("evil.pth", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        save({"state_dict": Evil()}, here / file)
        assert file in refused(NAME.replace("my.safetensors", file))
    assert not (here / "executed").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if not k.startswith("conv_stem")}, ["missing key"]),
        (
            lambda s: s | {"head.extra": torch.zeros(2), "head.more": torch.zeros(2)},
            ["2 unknown keys", "'head.extra'", "'head.more'"],
        ),
        (lambda s: s | {"classifier.bias": torch.zeros(3)}, ["wrong shape", "'classifier.bias' is [3], the network has [10]"]),
        (lambda s: {}, ["holds a dict"]),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_which_keys(trained, here, change, words):
    torch.save(change(dict(trained().state_dict())), here / "other.pt")
    line = refused(NAME.replace("my.safetensors", "other.pt"))
    assert line.startswith("other.pt")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:lcnet_05?checkpoint=my.safetensors&dataset=fashion-mnist", ["'lcnet_050'"]),
        ("timm:lcnet_050.ra2_in2k?checkpoint=my.safetensors&dataset=fashion-mnist", ["'lcnet_050.ra2_in1k'"]),
        ("torchvision:shufflenet_v2_x05?checkpoint=my.safetensors&dataset=cifar10", ["'shufflenet_v2_x0_5'"]),
        (f"timm:lcnet_050?dataset=fashion-mnist&{GREY}", ["no weights", "checkpoint=FILE", "hf://timm/lcnet_050"]),
        ("torchvision:shufflenet_v2_x0_5?dataset=cifar10", ["no weights", "https://download.pytorch.org/"]),
        (NAME.replace("my.", "no."), ["no.safetensors", "no such file"]),
        (NAME.replace("my.safetensors", "."), ["not a file"]),
        (NAME.replace("dataset=fashion-mnist", "num_classes=10"), ["--dataset"]),
        (NAME.replace("fashion-mnist", "fashion-mnits"), ["'fashion-mnist'"]),
        (NAME.replace("fashion-mnist", "image-folder"), ["image_size=N"]),
        (NAME.replace("fashion-mnist", "image-folder&image_size=28"), ["num_classes=K"]),
        (NAME.replace(GREY, "std=0.5"), ["3 values of mean", "1 channel", "mean=0.5"]),
        (NAME.replace("std=0.5", "std=0"), ["std"]),
        (NAME + "&interpolation=bicubic", ["resize"]),
        (NAME.replace("timm:lcnet_050", "torchvision:shufflenet_v2_x0_5"), ["3 channels"]),
        ("torchvision:inception_v3?checkpoint=my.safetensors&dataset=cifar10", ["inception_v3", "timm"]),
        ("torchvision:vit_b_32?checkpoint=my.safetensors&dataset=cifar10", ["missing key"]),
        ("timm:lcnet_050?checkpoint=my.safetensors&dataset=cifar10", ["wrong shape"]),
    ],
)
def test_a_name_that_leads_to_no_model_says_what_would(trained, name, words):
    trained()
    line = refused(name)
    assert all(word in line for word in words), line


def test_images_that_the_network_cannot_take_are_found_out_at_once(torchvision, here):
    network = torchvision.models.get_model("alexnet", num_classes=10)
    torch.save(network.state_dict(), here / "alex.pt")
    assert "resize=224" in refused("torchvision:alexnet?checkpoint=alex.pt&dataset=cifar10")


def test_a_card_may_name_such_a_network(trained, here):
    network = trained()
    spec = {
        "kind": "timm",
        "architecture": "lcnet_050",
        "mean": [0.25],
        "std": [0.5],
        "weights": {"file": "my.safetensors", "sha256": file_sha256(here / "my.safetensors")},
    }
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
        "model": spec,
    }
    (here / "mine.yaml").write_text(yaml.safe_dump(document))
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(rdc_bench.load_model("mine.yaml")(x), network((x - 0.25) / 0.5))
    for field, value, words in [
        ("mean", [0.25, 0.5], "mean has 2 values"),
        ("resize", 56, "interpolation"),
        ("architecture", "lcnet_05", "'lcnet_050'"),
        ("weights", {"file": "my.safetensors", "sha256": "0" * 64}, "SHA-256"),
    ]:
        (here / "mine.yaml").write_text(yaml.safe_dump({**document, "model": {**spec, field: value}}))
        assert words in refused("mine.yaml")
