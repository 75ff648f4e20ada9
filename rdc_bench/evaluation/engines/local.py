"""One shard after another, in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from rdc_bench.evaluation.engines import Known
from rdc_bench.evaluation.execute import Job, Task
from rdc_bench.results.store import Shard


def finished(tasks: Iterator[Task], known: Known) -> Generator[tuple[Job, Shard], None, None]:
    """Every task's shard, in the order given. See :class:`rdc_bench.evaluation.engines.Engine`."""
    for task in tasks:
        given = known.given(task.job)
        assert given is not None  # shards come in order, each after those it builds on
        yield task.job, task.executor.shard(task.job, given)
        del task  # the next may be of another model, and only one is held in memory
