"""Where shards are computed: in this process, or on a cluster.

An engine is given the shards that are still to be made, and yields them as they are finished, in any order. It decides neither
what a shard is (:class:`rdc_bench.evaluation.execute.Executor` does) nor where it is stored.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Protocol

from rdc_bench.errors import UserError, unknown_name

if TYPE_CHECKING:
    from rdc_bench.evaluation.execute import Given, Job, Task
    from rdc_bench.results.store import Shard

#: name → the module whose ``finished`` is the engine. Each is imported when it is asked for.
ENGINES = {name: f"rdc_bench.evaluation.engines.{name}" for name in ("local", "ray")}


class Known(Protocol):
    """What earlier shards have shown."""

    def given(self, job: Job) -> Given | None:
        """What ``job`` builds on, or None while shards that it waits for are not finished."""


class Engine(Protocol):
    """Computes shards."""

    def __call__(self, tasks: Iterator[Task], known: Known) -> Generator[tuple[Job, Shard], None, None]:
        """Every task's shard.

        Args:
            tasks: a model is loaded when the iterator reaches it; what a shard builds on comes before it.
            known: what is known of the shards that are finished. Whoever takes a finished shard adds it there before asking for
                the next.
        """


def find_engine(name: str) -> Engine:
    """The engine called ``name``. Raises ``UserError`` for an unknown name and when its library is not installed."""
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES, f"Engines: {', '.join(ENGINES)}.")
    try:
        engine: Engine = importlib.import_module(ENGINES[name]).finished
    except ImportError as error:
        raise UserError(f"engine {name!r}: pip install 'rdc-bench[{name}]' is needed first ({error})") from error
    return engine
