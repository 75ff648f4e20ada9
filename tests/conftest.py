"""Small models and attacks that the evaluation can be watched on, and data sets that a machine may lack."""

import os

# Tensors are small here, and threads that wait for one another on a busy machine take ten times as long as one alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

import rdc_bench
from rdc_bench.attacks import ATTACKS
from rdc_bench.cli import progress
from rdc_bench.core.randomness import normal, row_keys
from rdc_bench.data import fashion_mnist
from rdc_bench.zoo.loading import MODELS

SHAPE = (1, 28, 28)

# Machines that run tests are often busy: slowness alone is no failure, and what commands say of it would be one.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
progress.PATIENCE = 1e6

#: The data sets that lie outside of any cache. With HIDE_DATA in the environment, as if they were not there.
REAL_CIFAR10 = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
if os.environ.get("HIDE_DATA"):
    fashion_mnist.DEBIAN = REAL_CIFAR10 = Path(os.devnull, "hidden")


class Toy(nn.Module):
    """Tells classes by fixed random directions; optionally with noise on its logits."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(10, 784, generator=g))
        self.noise = noise

    @property
    def stochastic(self) -> bool:
        return self.noise > 0

    def forward(self, x):
        logits = x.flatten(1) @ self.weight.T
        if self.noise:
            logits = logits + self.noise * normal(row_keys(len(x)), (10,)).to(x)
        return logits


@pytest.fixture
def real_cifar10():
    """The folder of CIFAR-10's own images, where they are."""
    if not REAL_CIFAR10.is_dir():
        pytest.skip("the real CIFAR-10 images are not beside the repository (../shared/data/cifar10)")
    return REAL_CIFAR10


@pytest.fixture
def registered():
    """Register models and attacks for one test: ``registered.model(name, factory)``, ``registered.attack(name, function)``."""
    before = dict(MODELS._entries), dict(ATTACKS._entries)

    class Registered:
        toy = Toy

        @staticmethod
        def model(name, factory):
            rdc_bench.model(name, dataset="fashion-mnist", image_shape=SHAPE, num_classes=10)(factory)

        @staticmethod
        def attack(name, function, threats=("linf", "l2"), gradient="black-box"):
            rdc_bench.attack(name, threats=list(threats), gradient=gradient)(function)

    yield Registered
    MODELS._entries, ATTACKS._entries = before


@pytest.fixture
def toys(registered):
    registered.model("toy", lambda: Toy())
    registered.model("noisy", lambda: Toy(noise=20.0))
    return ["toy", "noisy"]
