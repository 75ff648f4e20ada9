"""The command line called as a program, in this process; and a model and attacks that it can be watched on."""

import sys

import pytest

from rdc_bench.cli import main

PLUGIN = """
import pathlib, time
import torch, rdc_bench
from rdc_bench import attack

HERE = pathlib.Path(__file__).parent

class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(10, 784, generator=torch.Generator().manual_seed(0)))
    def forward(self, x):
        return x.flatten(1) @ self.weight.T

@rdc_bench.model("plugged", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10)
def plugged():
    return Linear()

@attack("waits", threats=["linf"], gradient="black-box")
def waits(model, x, y, threat, *, generator):
    '''Waits as long as there is a file ``hold`` beside this one, and says so by a file ``held``.'''
    while (HERE / "hold").exists():
        (HERE / "held").touch()
        time.sleep(0.01)
    return threat.project(x, x + 0.1)
"""


@pytest.fixture
def plugin(tmp_path, registered):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def program(capsys, monkeypatch):
    """``program(*arguments)`` -> (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rdc-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return call
