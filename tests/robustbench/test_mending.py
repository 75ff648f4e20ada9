from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def unmended(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a process that has not imported the plugin yet."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "autoattack":
            monkeypatch.delitem(sys.modules, name)
    return monkeypatch


def test_mending_again_does_nothing(plugin: ModuleType) -> None:
    before = dict(sys.modules)
    assert plugin.mend() == []
    assert {name for name in sys.modules if name not in before} == set()
    assert importlib.util.find_spec("autoattack") is not None


def test_what_robustbench_imports_is_there(plugin: ModuleType) -> None:
    import pyautoattack
    from autoattack import AutoAttack
    from autoattack.autopgd_base import APGDAttack  # noqa: F401
    from autoattack.state import EvaluationState

    from rdc_bench.robustbench.autoattack import AutoAttack as Ours

    assert AutoAttack is Ours
    assert EvaluationState is pyautoattack.state.EvaluationState


def test_a_real_autoattack_is_left_alone(plugin: ModuleType, unmended: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "autoattack").mkdir()
    (tmp_path / "autoattack" / "__init__.py").write_text("AutoAttack = 'the real one'\n")
    unmended.syspath_prepend(tmp_path)
    assert "autoattack" not in plugin.mend()
    assert importlib.import_module("autoattack").AutoAttack == "the real one"
    sys.modules.pop("autoattack")


def test_a_missing_pkg_resources_is_supplied(plugin: ModuleType, unmended: pytest.MonkeyPatch) -> None:
    from rdc_bench.robustbench import mending

    found = importlib.util.find_spec
    unmended.delitem(sys.modules, "pkg_resources", raising=False)
    unmended.setattr(mending.importlib.util, "find_spec", lambda name: None if name == "pkg_resources" else found(name))
    assert plugin.mend() == ["autoattack", "pkg_resources"]
    path = sys.modules.pop("pkg_resources").resource_filename("robustbench.loaders", "helper_files/imagenet_test_image_ids.txt")
    assert len(Path(path).read_text().splitlines()) == 5000
