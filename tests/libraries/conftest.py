"""Checkpoints of small networks of timm and torchvision, made here."""

import pytest
import safetensors.torch
import torch


@pytest.fixture(scope="session")
def timm():
    reason = "timm is not installed, or its torchvision fits another torch (pip install 'rdc-bench[timm]')"
    pytest.importorskip("torchvision", reason=reason, exc_type=ImportError)
    return pytest.importorskip("timm", reason=reason, exc_type=ImportError)


@pytest.fixture(scope="session")
def torchvision(timm):
    return pytest.importorskip("torchvision")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(timm, here):
    """A function that makes a network of timm with seeded weights, saves them under ``file``, and returns it."""

    def make(architecture="lcnet_050", file="my.safetensors", **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = timm.create_model(architecture, **{"num_classes": 10, "in_chans": 1, **options})
            for buffer in network.buffers():  # as training leaves them, and not as they are made
                if buffer.is_floating_point():
                    buffer.uniform_(0.5, 1.5)
        if file.endswith(".safetensors"):
            safetensors.torch.save_file(network.state_dict(), here / file)
        else:
            torch.save(network.state_dict(), here / file)
        return network.eval()

    return make
