"""One shard after another, in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping

from torch import Tensor

from rdc_bench.evaluation.execute import Job, Span, Task
from rdc_bench.results.store import Shard


def finished(tasks: Iterator[Task], clean: Mapping[Span, Tensor]) -> Generator[tuple[Job, Shard], None, None]:
    """Every task's shard, in the order given. See :class:`rdc_bench.evaluation.engines.Engine`."""
    for task in tasks:
        yield task.job, task.executor.shard(task.job, clean)
        del task  # the next may be of another model, and only one is held in memory
