"""What is known of a run while it goes on: what others build on, what it tells of its models, how far it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from rdc_bench.evaluation.plan import Plan, PlannedAttack
from rdc_bench.evaluation.reported import reported_otherwise
from rdc_bench.evaluation.shards import Given, Job, Span, work
from rdc_bench.evaluation.witness import chosen
from rdc_bench.results.schema import CLEAN, Record
from rdc_bench.results.store import Shard


@dataclass(frozen=True)
class Step:
    """Progress of a run: images × attacks done and in all, what is worked on, and the images still robust so far."""

    done: int
    total: int
    threat: str
    model: str
    attack: str
    robust: int
    judged: int


Progress = Callable[[Step], None]
#: Takes a line that the user should see.
Say = Callable[[str], None]


class Tally:
    """What is known of the shards that are done: what others build on, what they tell of models, counts for the progress."""

    def __init__(self, plan: Plan, progress: Progress, say: Say) -> None:
        self.notes: defaultdict[int, list[str]] = defaultdict(list)  # by model
        self._plan = plan
        self._progress = progress
        self._say = say
        self._done = 0
        self._clean: dict[Span, Tensor] = {}
        self._rows: dict[int, list[Record]] = defaultdict(list)  # by model, as the next two
        self._finished: Counter[int] = Counter()  # images × attacks, the clean evaluation and witnesses left out
        self._chosen: dict[tuple[int, int], set[int]] = {}  # by model and witness
        self._robust: Counter[tuple[int, int]] = Counter()  # by model and attack, as the next
        self._judged: Counter[tuple[int, int]] = Counter()

    def add(self, job: Job, shard: Shard) -> None:
        """Take in a shard that is done."""
        images = job.stop - job.start
        self._rows[job.model] += shard.rows
        if job.attack == 0:
            values = torch.tensor([row.clean_prediction for row in shard.rows])
            self._clean[job.span] = values.unflatten(0, (images, -1))
        elif not self._planned(job).witness:
            self._finished[job.model] += images
        place = job.model, job.attack
        judged = len({row.index for row in shard.rows})
        self._robust[place] += judged - _wrong(shard)
        self._judged[place] += judged
        self._done += images
        plan = self._plan
        if job.attack == 0 and self._judged[place] == len(plan.dataset):
            self._compare_with_reported(job.model)
        label = self._planned(job).label if job.attack else CLEAN
        counts = self._robust[place], self._judged[place]
        self._progress(Step(self._done, work(plan), plan.config.threat, plan.models[job.model].name, label, *counts))

    def given(self, job: Job) -> Given | None:
        """See :class:`rdc_bench.evaluation.engines.Known`."""
        if job.attack == 0:
            return Given()
        clean = self._clean.get(job.span)
        if clean is None or not self._planned(job).witness:
            return None if clean is None else Given(clean)
        ordinary = sum(not planned.witness for planned in self._plan.attacks)
        if self._finished[job.model] < ordinary * len(self._plan.dataset):
            return None
        place = job.model, job.attack
        if place not in self._chosen:
            entries = [planned.entry for planned in self._plan.attacks if not planned.witness]
            ours = [row for row in self._rows[job.model] if row.attack in {CLEAN, *(entry.label for entry in entries)}]
            self._chosen[place] = chosen(pd.DataFrame(ours), entries, self._planned(job), self._plan.config.seed)
        return Given(clean, torch.tensor([index in self._chosen[place] for index in range(job.start, job.stop)]))

    def _compare_with_reported(self, model: int) -> None:
        clean = [row for row in self._rows[model] if row.attack == CLEAN]
        right = sum(row.clean_prediction == row.label for row in clean)
        planned = self._plan.models[model]
        self.notes[model] = reported_otherwise(planned.card, right / len(clean), len(self._plan.dataset))
        for note in self.notes[model]:
            self._say(f"model {planned.name}: {note}")

    def _planned(self, job: Job) -> PlannedAttack:
        return self._plan.attacks[job.attack - 1]


def _wrong(shard: Shard) -> int:
    """Images of a shard that are not right in every repeat, on the clean image and (if attacked) on the adversarial one."""
    return len(
        {
            row.index
            for row in shard.rows
            if row.clean_prediction != row.label or (row.attack != CLEAN and row.adversarial_prediction != row.label)
        }
    )
