"""Diagnosing a model: which signs there are, on which images, and what is stored."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch

import rdc_bench
from rdc_bench.attacks import ATTACKS
from rdc_bench.catalog import baselines
from rdc_bench.consistency import check_dataset
from rdc_bench.data import load_dataset
from rdc_bench.diagnostics import (
    black_box,
    convergence,
    finite_differences,
    gradient_agreement,
    growing_eps,
    one_step,
    repeatable_draws,
    transfer,
    zero_gradients,
)
from rdc_bench.diagnostics.outcome import Outcome
from rdc_bench.diagnostics.subject import Subject, make_subject
from rdc_bench.errors import UserError
from rdc_bench.evaluation.admission import admit
from rdc_bench.evaluation.plan import plan_model
from rdc_bench.loading import load_resolved
from rdc_bench.precision import full_float32
from rdc_bench.results.diagnosis import Check, Diagnosis
from rdc_bench.stages import Report, unheard
from rdc_bench.threats import LpThreat, make_threat

#: With fewer images, no exact test at the 5 % level could find anything.
LEAST_IMAGES = 6


class Sign(NamedTuple):
    """A sign of masked gradients: how it is called, who describes it, and the check that looks for it."""

    name: str
    title: str
    source: str
    examine: Callable[[Subject], Outcome]


SIGNS = (
    Sign("repeatable-draws", "draws repeat and are declared", "AutoAttack's checks", repeatable_draws.examine),
    Sign("zero-gradients", "gradients are not zero", "Carlini & Wagner 2017", zero_gradients.examine),
    Sign("finite-differences", "gradients predict the slope", "BPDA: Athalye et al. 2018", finite_differences.examine),
    Sign("gradient-agreement", "gradients of draws agree", "Chen et al. 2024, figure 2a", gradient_agreement.examine),
    Sign("convergence", "the loss rises and converges", "Pintor et al. 2022", convergence.examine),
    Sign("growing-eps", "nothing survives a huge eps", "Athalye et al. 2018", growing_eps.examine),
    Sign("black-box", "gradients beat random search", "Athalye et al. 2018", black_box.examine),
    Sign("transfer", "gradients beat transfer", "Carlini et al. 2019", transfer.examine),
    Sign("one-step", "many steps beat one", "Athalye et al. 2018", one_step.examine),
)


@full_float32()
def diagnose(
    name: str,
    threat: str = "linf",
    eps: str | float | None = None,
    *,
    n: int = 32,
    seed: int = 0,
    device: str = "cpu",
    data_dir: str | Path | None = None,
    surrogates: Sequence[str] | None = None,
    report: Report = unheard,
) -> Diagnosis:
    """Look for signs of masked gradients in a model.

    Args:
        name: see :func:`rdc_bench.load_model`. threat: ``linf`` or ``l2``; eps: its size, by default the threat's usual one.
        n: the first images of the test split, of which those are used that the model classifies correctly.
        surrogates: models to transfer from; by default all baselines of the dataset that can be run here.
        report: is told what is being done.
    Raises: ``UserError`` for bad input, for a model that :func:`rdc_bench.evaluation.admission.admit` refuses,
        and for one that is right on too few images.
    """
    began = time.monotonic()
    if n < LEAST_IMAGES:
        raise UserError(f"n = {n}: at least {LEAST_IMAGES} images are needed, for a test to find anything")
    planned = plan_model(name)
    card = planned.card
    ball, size = make_threat(threat, eps, card.image_shape)
    if not isinstance(ball, LpThreat) or ball.kind not in ATTACKS.get("fgsm").threats:
        raise UserError(f"diagnose works under linf and l2, not {threat}: gradients are masked, or not, whatever the threat")
    if surrogates is None:
        surrogates = [baseline for baseline in baselines(card.dataset) if baseline != card.name]
    others = {planned.card.name: planned for planned in map(plan_model, surrogates)}
    report(f"reading {card.dataset} (test)")
    dataset = load_dataset(card.dataset, "test", n, data_dir=data_dir, channels=card.image_shape[0])
    for model in (planned, *others.values()):
        check_dataset(model.card, dataset.name, dataset.image_shape, dataset.classes)
    report(f"loading {', '.join([card.name, *others])}")
    loaded = load_resolved(planned.found)
    rivals = {name: load_resolved(other.found).to(device) for name, other in others.items()}
    report(f"classifying {n} images")
    x, y = dataset.images.to(device), dataset.labels.to(device)
    admitted = admit(loaded, x, y, name=card.name, num_classes=card.num_classes, device=torch.device(device), seed=seed)
    subject = make_subject(admitted.model, x, y, ball, seed, rivals)
    if len(subject) < LEAST_IMAGES:
        raise UserError(
            f"model {card.name!r} classifies {len(subject)} of {n} images correctly; "
            f"at least {LEAST_IMAGES} are needed, so raise --n"
        )
    checks = examine(subject, report)
    return Diagnosis(
        model=card.name,
        settings=planned.settings,
        weights=planned.weights,
        origin=planned.origin,
        stochastic=subject.stochastic,
        dataset=dataset.name,
        data_sha256=dataset.sha256,
        threat=threat,
        eps=size.text,
        n=n,
        correct=len(subject),
        seed=seed,
        surrogates=list(others),
        versions={"rdc_bench": rdc_bench.__version__, "torch": importlib.metadata.version("torch")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
        checks=checks,
    )


def examine(subject: Subject, report: Report = unheard) -> list[Check]:
    """Look for every sign, in the order of :data:`SIGNS`."""
    checks = []
    for done, sign in enumerate(SIGNS):
        report(f"checking that {sign.title}", done, len(SIGNS))
        found = sign.examine(subject)._asdict()
        checks.append(Check(name=sign.name, title=sign.title, source=sign.source, **found))
    return checks
