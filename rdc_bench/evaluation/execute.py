"""Carrying out one shard: one model, one attack (or the clean evaluation), a few images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.gradient import differentiated, gradient_kind
from rdc_bench.core.global_generators import model_apart, preserved
from rdc_bench.core.precision import full_float32
from rdc_bench.core.predictions import predictions
from rdc_bench.core.randomness import Key, draws_for, generator, seed_of
from rdc_bench.evaluation.judge import OK, Verdict, check, followed
from rdc_bench.evaluation.metering import Meter, metered
from rdc_bench.evaluation.plan import Plan, PlannedAttack
from rdc_bench.evaluation.shards import Given, Job
from rdc_bench.evaluation.slopes import PIXEL, slope_errors
from rdc_bench.evaluation.watch import Seen, Watch, watched
from rdc_bench.results.schema import CLEAN, Record
from rdc_bench.results.store import Shard

#: Images of a run at which gradients are checked. Twelve tell a gradient that is wrong everywhere from one that is not.
CHECKED = 12


@dataclass(frozen=True)
class Executor:
    """Evaluates one loaded model.

    Args:
        model: on any device; it is moved to the run's. name: in the records. repeats: 1 for a deterministic model.
        draws: of the model's randomness that an attack averages per step at least, where it takes the option ``eot`` and the
            user has not said otherwise.
    """

    plan: Plan
    model: nn.Module
    name: str
    repeats: int
    draws: int = 1

    @full_float32()
    def shard(self, job: Job, given: Given) -> Shard:
        """The finished shard."""
        self.model.to(self.plan.config.device)
        if job.attack == 0:
            return self.clean(job.start, job.stop)
        return self.attack(self.plan.attacks[job.attack - 1], job.start, job.stop, given)

    def lost(self, job: Job, given: Given, reason: str) -> Shard:
        """The shard of an attack that could not be computed: failed on all its images, which stay as they are."""
        assert given.clean is not None
        planned = self.plan.attacks[job.attack - 1]
        part = self.plan.dataset.between(job.start, job.stop)
        shown = range(len(part)) if given.chosen is None else given.chosen.nonzero()[:, 0].tolist()
        rows = [
            self._row(
                planned.label, job.start + i, r, int(part.labels[i]), int(given.clean[i, r]), self._gradient(planned), _NOTHING
            )._replace(status="failed", reason=reason)
            for i in shown
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

    def attack(self, planned: PlannedAttack, start: int, stop: int, given: Given) -> Shard:
        """Attack images ``start`` to ``stop − 1`` and judge the result.

        Images that are misclassified in every clean repeat need no attack and stay as they are. A witness is shown those images
        alone that were chosen for it, and has rows for no others.
        """
        assert given.clean is not None
        images, labels = self._images(start, stop)
        shown = torch.arange(len(images)) if given.chosen is None else given.chosen.nonzero()[:, 0]
        if not len(shown):
            return Shard([], {"adversarial": images.cpu()})
        x, y, clean = images[shown], labels[shown], given.clean[shown]
        indices = (shown + start).tolist()
        todo = (clean == y.cpu()[:, None]).any(dim=1).nonzero()[:, 0]
        adversarial = x.clone()
        proposals = [_UNTOUCHED] * len(x)
        cost = _NOTHING
        if len(todo):
            began = time.perf_counter()
            with metered(self.model) as meter:
                made = self._propose(planned, x[todo], y[todo], [indices[i] for i in todo.tolist()])
            cost = _Cost(meter, len(todo), (time.perf_counter() - began) / len(todo))
            for place, proposal in zip(todo.tolist(), made, strict=True):
                proposals[place] = proposal
                adversarial[place] = x[place] if proposal.point is None else proposal.point
        # Images that need no attack are judged as well, under the same draws as the others, so that a record can be re-checked.
        keys = self._keys(planned.label, indices)
        predicted = predictions(self.model, adversarial, keys, self.repeats)
        self._take_what_was_passed_by(proposals, adversarial, predicted, y, keys)
        errors = self._slope_errors(planned, proposals, y, indices)
        distance = self.plan.threat.distance(x, adversarial)
        gradient = self._gradient(planned)
        rows = []
        for i, proposal in enumerate(proposals):
            verdict = proposal.verdict
            if verdict.status == "ok" and gradient != "none" and proposal.attacked and bool((predicted[i] == y[i].cpu()).any()):
                verdict = followed(proposal.seen)
            for r in range(self.repeats):
                spent = cost if proposal.attacked else _NOTHING
                row = self._row(planned.label, indices[i], r, int(y[i]), int(clean[i, r]), gradient, spent)
                if gradient != "none":
                    row = row._replace(gradients=proposal.seen.gradients, rose=proposal.seen.rose, slope_error=errors.get(i))
                if verdict.status == "ok":
                    found = int(predicted[i, r])
                    success = row.clean_prediction == row.label != found
                    row = row._replace(adversarial_prediction=found, distance=float(distance[i]), success=success)
                rows.append(row._replace(status=verdict.status, reason=verdict.reason))
        images[shown] = adversarial
        return Shard(rows, {"adversarial": images.cpu()})

    def _propose(self, planned: PlannedAttack, x: Tensor, y: Tensor, indices: Sequence[int]) -> list[Proposal]:
        """Run the attack, on the batch or image by image as its signature asks. Its exceptions become verdicts."""
        groups = [range(len(x))] if planned.attack.batched else [range(i, i + 1) for i in range(len(x))]
        stochastic = bool(getattr(self.model, "stochastic", False))
        proposals: list[Proposal] = []
        for group in groups:
            rows = slice(group.start, group.stop)
            part = indices[rows]
            kept = frozenset(i for i, index in enumerate(part) if index in self._sample)
            watch = Watch(x[rows], y[rows], self.plan.threat, stochastic, kept)
            candidate: Any = None
            try:
                with watched(self.model, watch):
                    candidate = self._call(planned, x[rows].clone(), y[rows], part)
            except Exception as error:  # somebody else's code may raise anything; none of it may pass for robustness
                verdicts = [Verdict("failed", f"{type(error).__name__}: {error}".split("\n")[0])] * len(group)
            else:
                verdicts = check(self.plan.threat, x[rows], candidate)
            for i, verdict in enumerate(verdicts):
                point = candidate[i].detach() if verdict.status == "ok" else None
                proposals.append(Proposal(point, verdict, watch.seen(i)))
        return proposals

    def _take_what_was_passed_by(
        self, proposals: list[Proposal], adversarial: Tensor, predicted: Tensor, y: Tensor, keys: Sequence[Key]
    ) -> None:
        """Replace images by points of the threat set on which the model was seen to err, where these fool more of the draws.

        The attack may have returned another point, or nothing that can be judged. The first three are changed in place.
        """
        passed = [i for i, p in enumerate(proposals) if p.seen.wrong is not None]
        passed = [i for i in passed if proposals[i].point is None or bool((predicted[i] == y[i].cpu()).any())]
        if not passed:
            return
        points = torch.stack([wrong for i in passed if (wrong := proposals[i].seen.wrong) is not None])
        found = predictions(self.model, points, [keys[i] for i in passed], self.repeats)
        for place, i in enumerate(passed):
            right = int((found[place] == y[i].cpu()).sum())
            before = self.repeats if proposals[i].point is None else int((predicted[i] == y[i].cpu()).sum())
            if right < before:
                adversarial[i], predicted[i] = points[place], found[place]
                proposals[i] = proposals[i]._replace(point=points[place], verdict=OK)

    def _slope_errors(
        self, planned: PlannedAttack, proposals: list[Proposal], y: Tensor, indices: Sequence[int]
    ) -> dict[int, float]:
        """By place, the larger of the gradient's errors at the first and the last point kept of an attack's path."""
        if self._gradient(planned) != "exact":  # an approximation is named as such in the records
            return {}
        places = [i for i, p in enumerate(proposals) if p.seen.path]
        if not places:
            return {}
        model = differentiated(self.model, planned.options["gradient"]) if "gradient" in planned.options else self.model
        reach = self.plan.threat.eps if self.plan.threat.kind == "linf" else PIXEL
        keys: list[Key] = [(self.plan.config.seed, indices[i], planned.label, "slopes") for i in places]
        errors = []
        for end in (0, -1):
            points = torch.stack([proposals[i].seen.path[end] for i in places])
            errors.append(slope_errors(model, points, y[places], keys, reach))
        return dict(zip(places, torch.stack(errors).amax(dim=0).tolist(), strict=True))

    @cached_property
    def _sample(self) -> set[int]:
        """Indices of the images at which gradients are checked; they depend on the seed alone."""
        everyone = range(len(self.plan.dataset))
        return set(sorted(everyone, key=lambda index: seed_of(self.plan.config.seed, index, "slopes"))[:CHECKED])

    def _call(self, planned: PlannedAttack, x: Tensor, y: Tensor, indices: Sequence[int]) -> Any:
        keys = [(self.plan.config.seed, index, planned.label, "attack") for index in indices]
        generators = [generator(*key, "generator") for key in keys]
        draws = {"generators": generators} if planned.attack.batched else {"generator": generators[0]}
        # Attacks that draw from the global generators must not depend on what ran before them, nor on the model's seeding them.
        apart = model_apart(self.model, x.device, seed_of(*keys[0], "model"))
        with preserved(x.device, generators[0].initial_seed()), apart, draws_for(keys):
            return planned.attack.function(self.model, x, y, self.plan.threat, **draws, **self._options(planned))

    def _options(self, planned: PlannedAttack) -> dict[str, Any]:
        """The attack's options, with as many draws per step as this model's gradients need."""
        options = dict(planned.options)
        if isinstance(options.get("eot"), int) and not planned.eot_given:
            options["eot"] = max(options["eot"], self.draws)
        return options

    def _gradient(self, planned: PlannedAttack) -> str:
        return "none" if planned.attack.gradient == "black-box" else gradient_kind(self.model, planned.options)

    def _keys(self, attack: str, indices: Sequence[int]) -> list[Key]:
        return [(self.plan.config.seed, index, attack, "repeat") for index in indices]

    def _images(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        part = self.plan.dataset.between(start, stop)
        return part.images.to(self.plan.config.device), part.labels.to(self.plan.config.device)

    def _row(
        self, attack: str, index: int, repeat: int, label: int, clean_prediction: int, gradient: str, cost: _Cost
    ) -> Record:
        """A row, as far as it is known before the image is judged."""
        return Record(
            self.name,
            attack,
            index,
            repeat,
            label,
            clean_prediction,
            gradient=gradient,
            nfe=(cost.meter.forward + cost.meter.backward) / cost.images,
            nfe_backward=cost.meter.backward / cost.images,
            seconds=cost.seconds,
        )


class Task(NamedTuple):
    """A job, and what can do it."""

    job: Job
    executor: Executor


@dataclass(frozen=True)
class _Cost:
    meter: Meter
    images: int
    seconds: float


class Proposal(NamedTuple):
    """What became of an image: the point that may be judged, if there is one, why not, and what was seen on the way."""

    point: Tensor | None
    verdict: Verdict
    seen: Seen
    attacked: bool = True


_NOTHING = _Cost(Meter(), 1, 0.0)
_UNTOUCHED = Proposal(None, OK, Seen(), attacked=False)
