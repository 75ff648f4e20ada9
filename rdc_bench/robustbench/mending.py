"""What the released ``robustbench`` needs before it can be imported, and does not bring along.

Two modules: ``autoattack``, which no package index carries (the attacks are published as ``pyautoattack``), and
``pkg_resources``, which setuptools no longer has. Each is supplied only where it is missing; a real one is left alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

#: Modules of ``pyautoattack`` that keep their name under ``autoattack``. Those for TensorFlow stay away: they import it.
SAME = ("autopgd_base", "checks", "fab_base", "fab_projections", "fab_pt", "other_utils", "square", "state")


def mend() -> list[str]:
    """Supply what is missing, for this process. Calling it again does nothing.

    Returns: the names of the modules supplied by this call.
    """
    supplied = []
    if importlib.util.find_spec("autoattack") is None:
        _supply_autoattack()
        supplied.append("autoattack")
    if importlib.util.find_spec("pkg_resources") is None:
        _supply_pkg_resources()
        supplied.append("pkg_resources")
    return supplied


def _supply_autoattack() -> None:
    package = _module("autoattack", "AutoAttack for RobustBench, see rdc_bench.robustbench.autoattack.", package=True)
    ours = importlib.import_module("rdc_bench.robustbench.autoattack")
    package.AutoAttack = ours.AutoAttack  # type: ignore[attr-defined]
    submodules = {name: importlib.import_module(f"pyautoattack.{name}") for name in SAME} | {"autoattack": ours}
    for name, module in submodules.items():
        setattr(package, name, module)
        sys.modules[f"autoattack.{name}"] = module


def _supply_pkg_resources() -> None:
    module = _module("pkg_resources", "The one function of pkg_resources that RobustBench calls.")
    module.resource_filename = resource_filename  # type: ignore[attr-defined]


def resource_filename(package: str, resource: str) -> str:
    """The path of a file that lies in the folder of an installed module or package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {package!r}", name=package)
    return str(Path(spec.origin).parent / resource)


def _module(name: str, doc: str, *, package: bool = False) -> ModuleType:
    """A new module in ``sys.modules``, with the spec by which :func:`importlib.util.find_spec` finds it."""
    module = ModuleType(name, doc)
    module.__spec__ = ModuleSpec(name, loader=None, is_package=package)
    if package:
        module.__path__ = []
    sys.modules[name] = module
    return module
