"""How a run is cut into shards: one model, one attack (or the clean evaluation), a few images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from rdc_bench.evaluation.plan import Plan

#: Images per shard: little work is lost when a run is killed, and batches are large enough for small networks.
SHARD = {True: 16, False: 64}  # by whether the model is randomised (and so, as a rule, expensive)


class Span(NamedTuple):
    """Images ``start`` to ``stop − 1`` under a model, by its place in the plan."""

    model: int
    start: int
    stop: int


class Job(NamedTuple):
    """A shard to be made. ``attack`` counts from 1 in the order of the plan; 0 is the clean evaluation."""

    model: int
    attack: int
    start: int
    stop: int

    @property
    def span(self) -> Span:
        """The images, whatever is done to them."""
        return Span(self.model, self.start, self.stop)

    @property
    def name(self) -> str:
        """Of the shard's files."""
        return f"{self.model:02d}-{self.attack:02d}-{self.start:06d}-{self.stop:06d}"


class Given(NamedTuple):
    """What must be known before a job can be done.

    Attributes:
        clean: clean predictions (images, repeats), which attacks need. chosen: images for a witness, bool (images,).
    """

    clean: Tensor | None = None
    chosen: Tensor | None = None


def spans(plan: Plan, stochastic: bool) -> Iterator[tuple[int, int]]:
    """The images of a plan, cut into shards: from where to before where."""
    n, size = len(plan.dataset), SHARD[stochastic]
    for start in range(0, n, size):
        yield start, min(n, start + size)


def jobs(plan: Plan, model: int, stochastic: bool) -> list[Job]:
    """Every shard of a model, the clean evaluation first."""
    return [Job(model, attack, *span) for attack in range(1 + len(plan.attacks)) for span in spans(plan, stochastic)]


def work(plan: Plan) -> int:
    """How many images × attacks a plan asks for, the clean evaluation among them."""
    return len(plan.models) * len(plan.dataset) * (1 + len(plan.attacks))
