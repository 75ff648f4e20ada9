"""What is said where the extra is not installed."""

from __future__ import annotations

import importlib
import sys

import pytest

import rdc_bench
from rdc_bench import UserError


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("robustbench", "rdc_bench.robustbench")):
            monkeypatch.delitem(sys.modules, name)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "robustbench" else found(name, *more))


@pytest.mark.usefixtures("_absent")
def test_the_line_that_installs_it_is_told() -> None:
    with pytest.raises(UserError, match=r"robustbench is not installed; pip install 'rdc-bench\[robustbench\]'"):
        rdc_bench.load_model("robustbench:Wang2023Better_WRN-70-16")
    with pytest.raises(ImportError, match=r"rdc-bench\[robustbench\]"):
        importlib.import_module("rdc_bench.robustbench")
