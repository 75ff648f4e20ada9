"""What a run will do, told before it starts: models, images, attacks, where results go, and about how long it takes.

It is told through the loggers of :mod:`rdc_bench.evaluation`: with level INFO what is worth keeping, with level DEBUG what is
being done at the moment. Whoever wants to see it adds a handler, as the command line does.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Mapping, Sequence

import torch

from rdc_bench.core.errors import UserError
from rdc_bench.core.global_generators import preserved
from rdc_bench.evaluation.estimate import ModelEstimate, Rates, estimate, timed
from rdc_bench.evaluation.plan import Plan, PlannedAttack, PlannedModel
from rdc_bench.evaluation.shards import jobs
from rdc_bench.results.store import RunFolder

log = logging.getLogger(__name__)

#: Images that a model is timed on, at most: a shard of a cheap model.
MOST = 64
#: Units of time, and how many seconds up to which they are used.
UNITS = ((100.0, 1, "s"), (5400.0, 60, "min"), (129_600.0, 3600, "h"), (float("inf"), 86_400, "days"))


def announce(runs: Sequence[tuple[Plan, RunFolder]]) -> None:
    """Tell what is about to be done. Models are loaded one after the other, and timed on a few images.

    Args: runs: plans for the same models and images, each with its folder.
    """
    if not log.isEnabledFor(logging.INFO):  # nobody listens, and timing takes seconds
        return
    todo = []
    for plan, folder in runs:
        if folder.complete:
            log.info("already complete: %s", folder.path)
        else:
            todo.append((plan, folder))
    if not todo:
        return
    plan = todo[0][0]
    data, images = plan.dataset, f"the first {len(plan.dataset)} {plan.dataset.split} images"
    log.info("models: %s", ", ".join(model.name for model in plan.models))
    log.info("images: %s of %s (%s)", images, data.name, data.source)
    for other, folder in todo:
        log.info("%s, eps %s; results: %s", other.config.threat, other.eps.text, folder.path)
        for attack in other.attacks:
            log.info("  %s", _attack(attack))
    log.info("profile %s; %s for each image of a randomised model", plan.config.profile, _count(plan.repeats, "judging draw"))
    if plan.config.engine != "local":
        log.info("time: unknown, as the machines of engine %s are not known", plan.config.engine)
        return
    rates = _rates([plan for plan, _ in todo])
    estimates: list[ModelEstimate] = []
    for other, folder in todo:
        left = _left(other, folder, rates)
        estimates += estimate(other, rates, left)
    for planned in plan.models:
        log.info("  %s: %s", planned.name, _time([each for each in estimates if each.model == planned.name]))
    log.info("time: %s on %s", _time(estimates), plan.config.device)


def _attack(planned: PlannedAttack) -> str:
    """``pgd (steps 8, loss margin)``; of a witness, what it is for."""
    options = ", ".join(f"{name} {value}" for name, value in planned.attack.in_force(planned.options).items())
    named = f"{planned.label} ({options})" if options else planned.label
    if planned.if_doubted:
        return f"{named}: only where gradients are in doubt"
    return f"{named}: on what the others leave standing" if planned.witness else named


def _rates(plans: Sequence[Plan]) -> dict[str, Rates | None]:
    """Of every model and everything that attacks transfer from, by name."""
    found: dict[str, Rates | None] = {}
    attacks = [attack for plan in plans for attack in plan.attacks]
    gradients = any(attack.attack.gradient != "black-box" for attack in attacks)
    models = [(model, gradients) for model in plans[0].models]
    models += [(source, True) for attack in attacks for source in attack.sources]
    for planned, differentiated in models:
        if planned.name not in found:
            log.debug("timing %s", planned.name)
            found[planned.name] = _timed(planned, plans[0], differentiated)
            gc.collect()  # only one model at a time is held in memory
    return found


def _timed(planned: PlannedModel, plan: Plan, gradients: bool) -> Rates | None:
    device = torch.device(plan.config.device)
    with preserved(device):
        try:
            model = planned.load().to(device)
        except UserError:
            raise
        except Exception:  # somebody else's code; what is wrong with it is told where the model is evaluated
            return None
        return timed(model, plan.dataset.images[:MOST].to(device), gradients=gradients)


def _left(plan: Plan, folder: RunFolder, rates: Mapping[str, Rates | None]) -> dict[tuple[int, int], int]:
    """Images that are still to be done, by the numbers of model and attack; tells of what is done."""
    left: dict[tuple[int, int], int] = {}
    done = total = 0
    for number, planned in enumerate(plan.models):
        rate = rates[planned.name]
        for job in jobs(plan, number, rate is not None and rate.stochastic):
            finished = folder.has_shard(job.name)
            done, total = done + finished, total + 1
            left[number, job.attack] = left.get((number, job.attack), 0) + (0 if finished else job.stop - job.start)
    if done:
        log.info("resuming %s: %s of %s done", folder.path, done, _count(total, "shard"))
    return left


def _time(estimates: Iterable[ModelEstimate]) -> str:
    """``about 3 min``, and what is not known."""
    known = list(estimates)
    seconds = sum(each.seconds for each in known)
    unknown = dict.fromkeys(attack for each in known for attack in each.unknown)
    if not unknown:
        return f"about {duration(seconds)}"
    names = ", ".join(unknown)
    return f"unknown ({names})" if not seconds else f"about {duration(seconds)}, and unknown for {names}"


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2.5 h``, ``12 days``."""
    if seconds < 1:
        return "1 s"
    size, unit = next((size, unit) for most, size, unit in UNITS if seconds < most)
    value = seconds / size
    return f"{value:.1f} {unit}" if value < 10 and unit != "s" else f"{value:.0f} {unit}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
