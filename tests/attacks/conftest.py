from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyautoattack
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.attacks import ATTACKS
from rdc_bench.core.randomness import draws_for, generator, normal, row_keys
from rdc_bench.data import load_dataset
from rdc_bench.threats import Threat


class SmallNet(nn.Module):
    """Two layers on images of 10 × 10. Computes in float64, so that logits do not depend on the batch they come in."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(100, 32), nn.ReLU(), nn.Linear(32, num_classes)).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.double().flatten(1)).float()


class NoisyNet(nn.Module):
    """A randomised defence: noise on the input, keyed by image."""

    stochastic = True

    def __init__(self, net: nn.Module, scale: float = 0.05) -> None:
        super().__init__()
        self.net = net
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.scale * normal(row_keys(len(x)), x.shape[1:]))


@pytest.fixture(scope="session")
def images() -> tuple[Tensor, Tensor]:
    """Fashion-MNIST at a low resolution: (1000, 1, 10, 10) in [0, 1], and labels."""
    dataset = load_dataset("fashion-mnist")
    return F.adaptive_avg_pool2d(dataset.images, 10), dataset.labels


@pytest.fixture(scope="session")
def trained(images: tuple[Tensor, Tensor]) -> SmallNet:
    """An undefended network, trained on all but the last 100 images."""
    x, y = images[0][:900], images[1][:900]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


@pytest.fixture(scope="session")
def noisy(trained: SmallNet) -> NoisyNet:
    return NoisyNet(trained)


@pytest.fixture
def held_out(images: tuple[Tensor, Tensor], trained: SmallNet) -> tuple[Tensor, Tensor]:
    """Eight held-out images that the network gets right, by a margin that noise does not undo."""
    x, y = images[0][900:], images[1][900:]
    logits = trained(x).detach()
    ordered = logits.sort(dim=1).values
    sure = (logits.argmax(dim=1) == y) & (ordered[:, -1] - ordered[:, -2] > 1.5)
    return x[sure][:8], y[sure][:8]


@pytest.fixture
def small_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's cascades take no options; give them a budget for tests."""
    set_version = pyautoattack.AutoAttack._set_version

    def shrunk(self: pyautoattack.AutoAttack, version: str) -> None:
        set_version(self, version)
        self.apgd.n_iter = self.apgd_targeted.n_iter = 12
        self.apgd.n_restarts = min(self.apgd.n_restarts, 2)
        self.fab.n_iter, self.fab.n_restarts = 4, min(self.fab.n_restarts, 2)
        self.square.n_queries = 60

    monkeypatch.setattr(pyautoattack.AutoAttack, "_set_version", shrunk)


SMALL_OPTIONS = {"steps": 15, "queries": 100, "eot": 2, "searches": 2, "cg_steps": 3, "rotations": 9, "translations": 3}

Attacker = Callable[..., Tensor]


@pytest.fixture
def attacked() -> Attacker:
    """Runs an attack as the evaluation does: each image with a generator and with randomness of its own."""

    def run(
        name: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, ids: Sequence[int] | None = None, **options: Any
    ) -> Tensor:
        attack = ATTACKS.get(name)
        ids = range(len(x)) if ids is None else ids
        small = {option: value for option, value in SMALL_OPTIONS.items() if option in attack.defaults}
        with draws_for([("image", i) for i in ids]):
            generators = [generator("attack", i) for i in ids]
            return attack.function(model, x, y, threat, generators=generators, **{**small, **options})

    return run
