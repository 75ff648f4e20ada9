"""Carrying out one shard: one model, one attack (or the clean evaluation), a few images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from rdc_bench.attacks.gradient import gradient_kind
from rdc_bench.evaluation.judge import OK, Verdict, check, predictions
from rdc_bench.evaluation.metering import Meter, metered
from rdc_bench.evaluation.plan import Plan, PlannedAttack
from rdc_bench.global_generators import model_apart, preserved
from rdc_bench.precision import full_float32
from rdc_bench.randomness import Key, draws_for, generator, seed_of
from rdc_bench.results.schema import CLEAN
from rdc_bench.results.store import Shard


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


@dataclass(frozen=True)
class Executor:
    """Evaluates one loaded model.

    Args: model: on any device; it is moved to the run's. name: in the records. repeats: 1 for a deterministic model.
    """

    plan: Plan
    model: nn.Module
    name: str
    repeats: int

    @full_float32()
    def shard(self, job: Job, clean: Mapping[Span, Tensor]) -> Shard:
        """The finished shard.

        Args: clean: clean predictions (images, repeats); an attack needs those of its own images.
        """
        self.model.to(self.plan.config.device)
        if job.attack == 0:
            return self.clean(job.start, job.stop)
        return self.attack(self.plan.attacks[job.attack - 1], job.start, job.stop, clean[job.span])

    def lost(self, job: Job, clean: Tensor, reason: str) -> Shard:
        """The shard of an attack that could not be computed: failed on all its images, which stay as they are.

        Args: clean: clean predictions (images, repeats).
        """
        planned = self.plan.attacks[job.attack - 1]
        part = self.plan.dataset.between(job.start, job.stop)
        rows = [
            self._row(planned.label, job.start + i, r, int(part.labels[i]), int(clean[i, r]), self._gradient(planned), _NOTHING)
            | Verdict("failed", reason)._asdict()
            for i in range(len(part))
            for r in range(self.repeats)
        ]
        return Shard(rows, {"adversarial": part.images})

    def clean(self, start: int, stop: int) -> Shard:
        """Predictions on clean images ``start`` to ``stop − 1``."""
        x, y = self._images(start, stop)
        began = time.perf_counter()
        with metered(self.model) as meter:
            predicted = predictions(self.model, x, self._keys(CLEAN, range(start, stop)), self.repeats)
        seconds = (time.perf_counter() - began) / predicted.numel()
        cost = _Cost(meter, predicted.numel(), seconds)
        rows = [
            self._row(CLEAN, start + i, r, int(y[i]), int(predicted[i, r]), gradient="none", cost=cost)
            for i in range(len(x))
            for r in range(self.repeats)
        ]
        return Shard(rows, {})

    def attack(self, planned: PlannedAttack, start: int, stop: int, clean: Tensor) -> Shard:
        """Attack images ``start`` to ``stop − 1`` and judge the result.

        Images that are misclassified in every clean repeat need no attack and stay as they are.

        Args: clean: clean predictions (stop − start, repeats).
        """
        x, y = self._images(start, stop)
        todo = (clean == y.cpu()[:, None]).any(dim=1).nonzero()[:, 0]
        adversarial = x.clone()
        verdicts = [OK] * len(x)
        cost = _NOTHING
        if len(todo):
            began = time.perf_counter()
            with metered(self.model) as meter:
                candidates, found = self._propose(planned, x[todo], y[todo], (todo + start).tolist())
            cost = _Cost(meter, len(todo), (time.perf_counter() - began) / len(todo))
            for place, verdict in zip(todo.tolist(), found, strict=True):
                verdicts[place] = verdict
            adversarial[todo] = candidates
        # Images that need no attack are judged as well, under the same draws as the others, so that a record can be re-checked.
        predicted = predictions(self.model, adversarial, self._keys(planned.label, range(start, stop)), self.repeats)
        distance = self.plan.threat.distance(x, adversarial)
        attacked = set(todo.tolist())
        gradient = self._gradient(planned)
        rows = []
        for i, verdict in enumerate(verdicts):
            spent = cost if i in attacked else _NOTHING
            for r in range(self.repeats):
                row = self._row(planned.label, start + i, r, int(y[i]), int(clean[i, r]), gradient, spent)
                if verdict.status == "ok":
                    row["adversarial_prediction"] = int(predicted[i, r])
                    row["distance"] = float(distance[i])
                    row["success"] = row["clean_prediction"] == row["label"] != row["adversarial_prediction"]
                rows.append(row | verdict._asdict())
        return Shard(rows, {"adversarial": adversarial.cpu()})

    def _propose(self, planned: PlannedAttack, x: Tensor, y: Tensor, indices: Sequence[int]) -> tuple[Tensor, list[Verdict]]:
        """Run the attack, on the batch or image by image as its signature asks. Its exceptions become verdicts."""
        groups = [range(len(x))] if planned.attack.batched else [range(i, i + 1) for i in range(len(x))]
        out = x.clone()
        verdicts: list[Verdict] = []
        for group in groups:
            part = x[group.start : group.stop].clone()
            try:
                candidate = self._call(planned, part, y[group.start : group.stop], indices[group.start : group.stop])
            except Exception as error:  # somebody else's code may raise anything; none of it may pass for robustness
                verdicts += [Verdict("failed", f"{type(error).__name__}: {error}".split("\n")[0])] * len(group)
                continue
            found = check(self.plan.threat, x[group.start : group.stop], candidate)
            for offset, verdict in enumerate(found):
                if verdict.status == "ok":
                    assert isinstance(candidate, Tensor)
                    out[group.start + offset] = candidate[offset].detach()
            verdicts += found
        return out, verdicts

    def _call(self, planned: PlannedAttack, x: Tensor, y: Tensor, indices: Sequence[int]) -> Any:
        keys = [(self.plan.config.seed, index, planned.label, "attack") for index in indices]
        generators = [generator(*key, "generator") for key in keys]
        draws = {"generators": generators} if planned.attack.batched else {"generator": generators[0]}
        # Attacks that draw from the global generators must not depend on what ran before them, nor on the model's seeding them.
        apart = model_apart(self.model, x.device, seed_of(*keys[0], "model"))
        with preserved(x.device, generators[0].initial_seed()), apart, draws_for(keys):
            return planned.attack.function(self.model, x, y, self.plan.threat, **draws, **planned.options)

    def _gradient(self, planned: PlannedAttack) -> str:
        return "none" if planned.attack.gradient == "black-box" else gradient_kind(self.model, planned.options)

    def _keys(self, attack: str, indices: Sequence[int]) -> list[Key]:
        return [(self.plan.config.seed, index, attack, "repeat") for index in indices]

    def _images(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        part = self.plan.dataset.between(start, stop)
        return part.images.to(self.plan.config.device), part.labels.to(self.plan.config.device)

    def _row(
        self, attack: str, index: int, repeat: int, label: int, clean_prediction: int, gradient: str, cost: _Cost
    ) -> dict[str, Any]:
        return {
            "model": self.name,
            "attack": attack,
            "index": index,
            "repeat": repeat,
            "label": label,
            "clean_prediction": clean_prediction,
            "adversarial_prediction": None,
            "distance": None,
            "success": False,
            "status": "ok",
            "reason": None,
            "gradient": gradient,
            "nfe": (cost.meter.forward + cost.meter.backward) / cost.images,
            "nfe_backward": cost.meter.backward / cost.images,
            "seconds": cost.seconds,
        }


class Task(NamedTuple):
    """A job, and what can do it."""

    job: Job
    executor: Executor


@dataclass(frozen=True)
class _Cost:
    meter: Meter
    images: int
    seconds: float


_NOTHING = _Cost(Meter(), 1, 0.0)
