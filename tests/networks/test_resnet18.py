"""Against the implementation that comes with the package whose weights it loads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pyautoattack
import pytest
import torch

from rdc_bench.networks import ResNet18

EXAMPLES = Path(pyautoattack.__file__).parent / "examples"


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("pyautoattack_example_resnet", EXAMPLES / "resnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.ResNet18()
    network.load_state_dict(torch.load(EXAMPLES / "model_test.pt", map_location="cpu", weights_only=True))
    return network.eval()


def test_keys_and_logits_are_those_of_the_other_implementation(theirs: torch.nn.Module) -> None:
    ours = ResNet18().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert len(ours.state_dict()) == 122
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_other_sizes_and_classes() -> None:
    assert ResNet18(1, 7).eval()(torch.rand(1, 1, 28, 28)).shape == (1, 7)
