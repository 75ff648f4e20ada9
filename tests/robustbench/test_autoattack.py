"""The interface that RobustBench calls, against the library underneath it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType

import pyautoattack
import pytest
import torch
from pyautoattack import checks
from torch import Tensor, nn

EPS = 0.5 / 255


class Linear(nn.Module):
    """Ten fixed random directions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(192, 10, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight


class Iterative(Linear):
    """The same, after a step of optimisation inside its forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            step = torch.autograd.grad(leaf.square().sum(), leaf)[0]
        return super().forward(x - 0.001 * step)


@pytest.fixture
def cls(plugin: ModuleType) -> type:
    from rdc_bench.robustbench.autoattack import AutoAttack

    return AutoAttack


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, Linear()(x).argmax(dim=1)


def custom(cls: type, model: nn.Module, attacks: list[str], **options):
    return cls(model, "Linf", EPS, 0, False, attacks, "custom", device="cpu", **options)


def test_images_and_labels_are_those_of_the_library(cls: type, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    attacks = ["apgd-ce", "apgd-dlr"]
    library = pyautoattack.AutoAttack(Linear(), attacks=attacks, eps=EPS, norm="Linf", seed=0, version="custom")
    expected, labels = library.run_standard_evaluation(x, y, batch_size=4)
    images = custom(cls, Linear(), attacks).run_standard_evaluation(x, y, bs=4)
    assert torch.equal(images, expected)
    assert not torch.equal(images, x)
    found = custom(cls, Linear(), attacks).run_standard_evaluation(x, y, 4, True)
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], labels)


def test_versions_choose_the_attacks(cls: type) -> None:
    assert cls(Linear(), device="cpu").attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    chosen = cls(Linear(), version="rand", device="cpu")
    assert chosen.attacks_to_run == ["apgd-ce", "apgd-dlr"]
    chosen.set_version("standard")
    assert len(chosen.attacks_to_run) == 4
    with pytest.raises(ValueError, match="custom"):
        cls(Linear(), attacks_to_run=["square"], device="cpu")


def test_attacks_one_by_one(cls: type, batch: tuple[Tensor, Tensor]) -> None:
    attack = custom(cls, Linear(), ["apgd-ce", "apgd-dlr"])
    found = attack.run_standard_evaluation_individual(*batch)
    assert set(found) == {"apgd-ce", "apgd-dlr"}
    for name, images in found.items():
        assert torch.equal(images, custom(cls, Linear(), [name]).run_standard_evaluation(*batch))
    assert attack.attacks_to_run == ["apgd-ce", "apgd-dlr"]


def test_a_state_that_could_not_be_read_again_is_refused(cls: type, batch: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="cannot be resumed"):
        custom(cls, Linear(), ["apgd-ce"]).run_standard_evaluation(*batch, state_path=tmp_path / "state.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotImplementedError, match="torch"):
        cls(Linear(), is_tf_model=True)


def test_the_log_goes_where_it_is_asked_to(
    cls: type, batch: tuple[Tensor, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("auto-attack")
    before = list(logger.handlers), logger.level, logger.propagate
    custom(cls, Linear(), ["apgd-ce"]).run_standard_evaluation(*batch)
    assert capsys.readouterr().out == ""
    options = {"attacks_to_run": ["apgd-ce"], "version": "custom", "device": "cpu", "log_path": tmp_path / "log.txt"}
    cls(Linear(), eps=EPS, **options).run_standard_evaluation(*batch)
    shown = capsys.readouterr().out
    assert "initial accuracy: 100.00%" in shown
    assert (tmp_path / "log.txt").read_text() == shown
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_a_dynamic_model_does_not_make_the_next_one_dynamic(
    cls: type, batch: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    for model, dynamic in ((Iterative(), True), (Linear(), False)):
        attack = cls(model, eps=EPS, attacks_to_run=["apgd-ce"], version="custom", device="cpu", seed=0)
        attack.run_standard_evaluation(*batch)
        assert ("dynamic defense" in capsys.readouterr().out) is dynamic
    assert not any(checks.funcs.values())


def test_tracing_goes_on_afterwards(cls: type, batch: tuple[Tensor, Tensor]) -> None:
    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        custom(cls, Linear(), ["apgd-ce"]).run_standard_evaluation(*batch)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
