"""The one registry class, used for attacks, models and threats alike.

Entries come from three places: this package (registered by path, imported when first asked for), installed packages (entry
points in the group ``rdc_bench.<kind>s``) and plugin files (``--plugin FILE.py``, whose decorators register at import). A name
that two origins claim is an error naming both. A broken entry point is a warning and never hides the others.

A name with a known prefix (``foolbox:LinfPGD``) is handed to that prefix's adapter, which makes the thing when it is asked for;
such names are not listed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from rdc_bench.core.errors import UserError, unknown_name

T = TypeVar("T")

_PLUGIN_PREFIX = "rdc_bench_plugin_"


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing: where it comes from, and the thing itself or the ``module:attribute`` path that leads to it."""

    name: str
    origin: str
    target: T | str


class Registry(Generic[T]):
    """Named things of one kind.

    Args:
        kind: singular noun for messages, e.g. ``"attack"``; the entry-point group is ``rdc_bench.<kind>s``.
        builtin: name → ``"module:attribute"`` of what this package provides.
        type_: what entry points must lead to, if only one type will do.
        adapters: prefix → ``"module:function"``; the function takes a whole name and returns the thing and its origin.
    """

    def __init__(
        self, kind: str, builtin: dict[str, str], type_: type[T] | None = None, adapters: dict[str, str] | None = None
    ) -> None:
        self.kind = kind
        self._type = type_
        self._adapters = adapters or {}
        self._adapted: dict[str, Entry[T]] = {}
        self._entries: dict[str, Entry[T]] = {name: Entry(name, "rdc_bench", path) for name, path in builtin.items()}
        self._entry_points_read = False

    def register(self, name: str, target: T, origin: str) -> None:
        """Add ``target``. The same origin may register a name again (a module imported twice); another may not."""
        held = self._entries.get(name)
        if held is not None and held.origin != origin:
            raise UserError(f"{self.kind} {name!r} is claimed by {held.origin} and by {origin}; rename one of them")
        self._entries[name] = Entry(name, origin, target)

    def names(self) -> list[str]:
        """All names, sorted, installed plugins included."""
        self._read_entry_points()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises ``UserError`` with the nearest names when there is none."""
        self._read_entry_points()
        if name in self._entries:
            return self._entries[name]
        prefix, colon, rest = name.partition(":")
        if not colon or prefix not in self._adapters:
            known = [*self._entries, *(f"{adapter}:{rest}" for adapter in self._adapters if colon)]
            raise unknown_name(self.kind, name, known, f"`rdc-bench list {self.kind}s` shows them all.")
        if name not in self._adapted:
            target, origin = _imported(self._adapters[prefix])(name)
            self._adapted[name] = Entry(name, origin, target)
        return self._adapted[name]

    def get(self, name: str) -> T:
        """The thing called ``name``, imported if need be."""
        entry = self.entry(name)
        if isinstance(entry.target, str):
            entry = self._entries[name] = Entry(name, entry.origin, _imported(entry.target))
        assert not isinstance(entry.target, str)
        return entry.target

    def _read_entry_points(self) -> None:
        if self._entry_points_read:
            return
        self._entry_points_read = True
        for point in importlib.metadata.entry_points(group=f"rdc_bench.{self.kind}s"):
            origin = point.module.partition(".")[0]
            try:
                target = point.load()
                if self._type is not None and not isinstance(target, self._type):
                    raise TypeError(f"{point.value} is no {self._type.__name__}; is its decorator missing?")
                held = self._entries.get(point.name)
                if held is None or held.origin != origin:  # otherwise its decorator has registered it
                    self.register(point.name, target, origin)
            except Exception as error:  # somebody else's code: whatever it raises must not hide the built-ins
                warnings.warn(f"plugin {point.name!r} of {origin} cannot be loaded: {error}", stacklevel=2)


def _imported(path: str) -> Any:
    """What ``module:attribute`` leads to."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def origin_of(module: ModuleType | None) -> str:
    """Where something defined in ``module`` comes from: its top-level package, or the file if it is a plugin file."""
    if module is None:
        return "__main__"
    if module.__name__.startswith(_PLUGIN_PREFIX) and module.__file__:
        return module.__file__
    return module.__name__.partition(".")[0]


def load_plugin(path: str | Path) -> None:
    """Import a plugin file, so that its decorators register. The file is the user's own code and runs as such."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file")
    name = f"{_PLUGIN_PREFIX}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugin {path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    _run_plugin(module, path, functools.partial(spec.loader.exec_module, module))


class PluginSource(NamedTuple):
    """A plugin file for another process. ``module``: the name under which it is imported. ``file``: where it lies here."""

    module: str
    file: str
    source: bytes


def plugin_sources() -> tuple[PluginSource, ...]:
    """The plugin files that this process has loaded."""
    loaded = [(name, module.__file__) for name, module in list(sys.modules.items()) if name.startswith(_PLUGIN_PREFIX)]
    return tuple(PluginSource(name, file, Path(file).read_bytes()) for name, file in loaded if file)


def load_plugin_source(plugin: PluginSource) -> None:
    """Import a plugin file of another process, unless this one has it; the file itself need not be here."""
    if plugin.module in sys.modules:
        return
    module = ModuleType(plugin.module)
    module.__file__ = plugin.file
    _run_plugin(module, plugin.file, lambda: exec(compile(plugin.source, plugin.file, "exec"), vars(module)))


def _run_plugin(module: ModuleType, path: str | Path, run: Callable[[], None]) -> None:
    """Make ``module`` known and run its code, whose errors are the user's."""
    sys.modules[module.__name__] = module
    try:
        run()
    except UserError:
        del sys.modules[module.__name__]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise UserError(f"plugin {path}: {type(error).__name__}: {error}") from error
