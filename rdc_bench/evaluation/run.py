"""Running a plan: load each model, work through the shards that are not done yet, merge, summarise."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rdc_bench.attacks.gradient import gradient_kind
from rdc_bench.core.errors import UserError
from rdc_bench.core.files import check_writable
from rdc_bench.core.global_generators import preserved
from rdc_bench.evaluation.admission import admit
from rdc_bench.evaluation.announce import announce
from rdc_bench.evaluation.engines import Engine, find_engine
from rdc_bench.evaluation.execute import Executor, Task
from rdc_bench.evaluation.mending import mended
from rdc_bench.evaluation.plan import Plan, PlannedModel, RunConfig
from rdc_bench.evaluation.planning import make_plan
from rdc_bench.evaluation.records import evaluations, failures, manifest_of, merged
from rdc_bench.evaluation.shards import jobs
from rdc_bench.evaluation.showing import IMAGES
from rdc_bench.evaluation.tally import Progress, Say, Tally
from rdc_bench.results.admission import Admission
from rdc_bench.results.diagnosis import failed_diagnoses, masked
from rdc_bench.results.schema import Manifest, ModelEntry, RunStatus
from rdc_bench.results.store import RunFolder
from rdc_bench.results.summary import SENSES, ModelSummary, summarize

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    path: Path
    manifest: Manifest
    models: list[ModelSummary]

    @property
    def complete(self) -> bool:
        """Whether every attack gave a verdict on every image, and nothing speaks against the gradients that it followed."""
        return self.manifest.status == "complete" and not any(summary.doubts for summary in self.models)

    def summary(self) -> pd.DataFrame:
        """One row per model: rates as fractions with Wilson bounds, undecided images, cost."""
        return pd.DataFrame([flat(summary) for summary in self.models])

    def as_json(self) -> dict[str, Any]:
        """The document that ``rdc-bench run --json`` prints."""
        m = self.manifest
        found = masked(failed_diagnoses(self.path.parent), m.models)
        return {
            "run": str(self.path),
            "status": m.status,
            "threat": m.threat,
            "eps": m.eps,
            "dataset": m.dataset,
            "n": m.n,
            "profile": m.profile,
            "note": m.note,
            "models": [
                {**summary.as_json(), "masked": [failed._asdict() for failed in found.get(summary.model, [])]}
                for summary in self.models
            ],
        }


def flat(summary: ModelSummary) -> dict[str, Any]:
    """A summary as one flat row."""
    row: dict[str, Any] = {"model": summary.model, "role": summary.role, "status": summary.status}
    rates = {"clean": summary.clean, **{f"robust_{sense}": getattr(summary, sense) for sense in SENSES}}
    rates |= {f"{name}_{sense}": getattr(a, sense) for name, a in summary.attacks.items() for sense in SENSES}
    for name, rate in rates.items():
        row |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
    return row | {
        "undecided": summary.undecided,
        "nfe_per_image": summary.nfe_per_image,
        "seconds_per_image": summary.seconds_per_image,
        "upper_bound": summary.upper_bound,
    }


def run(config: RunConfig, progress: Progress = lambda step: None, say: Say = lambda line: None) -> RunResult:
    """Evaluate. The same configuration resumes an unfinished run, and returns a finished one as it is.

    Args: progress: called after every shard. say: told what is worth knowing of each model, in a line.

    Raises: ``UserError`` for bad input, and ``OSError`` where the results cannot be written, before anything is computed;
        later ``OSError`` (a full disk) and ``KeyboardInterrupt``, after saving what was done.
    """
    find_engine(config.engine)  # which may be unknown or not installed: before data are looked for
    plan = make_plan(config)
    with begun([plan], say) as admissions:
        return carry_out(plan, progress, say, admissions)


@contextlib.contextmanager
def begun(plans: Sequence[Plan], say: Say) -> Iterator[dict[str, Admission]]:
    """Refuse what has to be refused, keep other processes out of the plans' folders, and only then tell what will be done.

    Args: plans: for the same models and images.
    Returns: what was found out about the models, by name.
    Raises: as :func:`run` does before anything is computed.
    """
    runs = [(plan, folder_of(plan)) for plan in plans]
    unfinished = [(plan, folder) for plan, folder in runs if not folder.complete]
    for _, folder in unfinished:
        check_writable(folder.path)
    admissions = _admitted(unfinished[0][0]) if unfinished else {}
    with contextlib.ExitStack() as locks:
        for _, folder in unfinished:
            locks.enter_context(folder.at_work())
        announce(runs)
        for name, admission in admissions.items():
            if admission.remarks:
                say(f"model {name}: {'; '.join(admission.remarks)}")
        yield admissions


def carry_out(plan: Plan, progress: Progress, say: Say, admissions: dict[str, Admission]) -> RunResult:
    """Evaluate one of the plans that were :func:`begun`."""
    folder = folder_of(plan)
    if not folder.complete:  # another process may just have finished it
        _carry_on(plan, find_engine(plan.config.engine), folder, progress, say, admissions)
    return read_run(folder)


def _carry_on(
    plan: Plan, engine: Engine, folder: RunFolder, progress: Progress, say: Say, admissions: dict[str, Admission]
) -> None:
    """Do what is left to do of a run, in a folder that no other process works in."""
    began = time.monotonic()
    manifest = folder.manifest() if folder.exists else manifest_of(plan)
    earlier = manifest.wall_seconds

    def stamped(status: RunStatus) -> Manifest:
        return manifest.model_copy(update={"status": status, "wall_seconds": earlier + time.monotonic() - began})

    folder.write_manifest(stamped("started"))
    try:
        entries = _execute(plan, engine, folder, progress, say, admissions)
        log.debug("merging the shards")
        rows, images = merged(plan, folder, entries)
        failed = failures(rows)
        final = stamped("complete with failures" if failed else "complete")
        forward, backward = evaluations(rows)
        update = {"models": entries, "failures": failed, "nfe_forward": forward, "nfe_backward": backward}
        folder.finish(rows, images, final.model_copy(update=update))
    except BaseException:
        with contextlib.suppress(OSError, UserError):  # a full disk, say: what stopped the run is the error to tell of
            if not folder.complete:
                folder.write_manifest(stamped("interrupted"))
        raise


def read_run(folder: RunFolder) -> RunResult:
    """A complete run from disk."""
    manifest = folder.manifest()
    return RunResult(folder.path, manifest, summarize(manifest, folder.records()))


def folder_of(plan: Plan) -> RunFolder:
    """Where the run lives: the latest folder of this plan, or the next free one for ``fresh``."""
    out = plan.config.out
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, not a folder")
    attempt = 1
    while (folder := _attempt(out, plan.run_id, attempt + 1)).exists:
        attempt += 1
    folder = _attempt(out, plan.run_id, attempt)
    if plan.config.fresh and folder.exists:
        folder = _attempt(out, plan.run_id, attempt + 1)
    if folder.exists and folder.manifest().identity != plan.identity:
        raise UserError(f"{folder.path}: holds a run of another plan; choose another --out")
    return folder


def _attempt(out: Path, run_id: str, attempt: int) -> RunFolder:
    return RunFolder(out / (run_id if attempt == 1 else f"{run_id}-{attempt}"))


def _admitted(plan: Plan) -> dict[str, Admission]:
    """Admit every model, one in memory at a time, before anything is computed or written. Raises ``UserError``."""
    images = plan.dataset.between(0, min(len(plan.dataset), IMAGES))
    admissions: dict[str, Admission] = {}
    for planned in plan.models:
        found = admit(
            _model(plan, planned),
            images.images,
            images.labels,
            name=planned.name,
            num_classes=planned.card.num_classes,
            device=torch.device(plan.config.device),
            seed=plan.config.seed,
        ).admission
        if planned.fixed_noise and found.stochastic:
            raise UserError(f"model {planned.name!r}: its noise cannot be fixed, as it is not drawn through `row_keys`")
        admissions[planned.name] = found
    return admissions


def _execute(
    plan: Plan, engine: Engine, folder: RunFolder, progress: Progress, say: Say, admissions: dict[str, Admission]
) -> list[ModelEntry]:
    """Do every shard that is not on disk yet."""
    entries: list[ModelEntry] = []
    tally = Tally(plan, progress, say)
    finished = engine(_pending(plan, folder, entries, tally, admissions), tally)
    with contextlib.closing(finished):  # an engine lets go of what is under way, at once
        for job, shard in finished:
            folder.write_shard(job.name, shard)
            tally.add(job, shard)
    return [entry.model_copy(update={"notes": tally.notes[number]}) for number, entry in enumerate(entries)]


def _pending(
    plan: Plan, folder: RunFolder, entries: list[ModelEntry], tally: Tally, admissions: dict[str, Admission]
) -> Iterator[Task]:
    """What is not on disk yet, one model after another; each is loaded when its turn comes, and entered."""
    for number, planned in enumerate(plan.models):
        executor, entry = _loaded(plan, planned, admissions[planned.name])
        entries.append(entry)
        for job in jobs(plan, number, entry.stochastic):
            shard = folder.shard(job.name)
            if shard is None:
                yield Task(job, executor)
            else:
                tally.add(job, shard)
        del executor
        gc.collect()


def _model(plan: Plan, planned: PlannedModel) -> torch.nn.Module:
    log.debug("loading %s", planned.name)
    with preserved(torch.device(plan.config.device)):  # a network that is made draws weights, though others take their place
        return planned.load()


def _loaded(plan: Plan, planned: PlannedModel, admission: Admission) -> tuple[Executor, ModelEntry]:
    model = mended(_model(plan, planned), admission)
    stochastic = bool(getattr(model, "stochastic", False))
    repeats = plan.repeats if stochastic else 1
    entry = ModelEntry(
        name=planned.name,
        fixed_noise=planned.fixed_noise,
        reference=planned.reference,
        card=planned.card.model_dump(mode="json"),
        card_sha256=planned.card_sha256,
        parts={part.name: part.model_dump(mode="json") for part in planned.cards[1:]},
        weights=planned.weights,
        origin=planned.origin,
        stochastic=stochastic,
        gradient=_gradient(plan, model),
        repeats=repeats,
        admission=admission,
    )
    return Executor(plan, model, planned.name, repeats, admission.needed_draws), entry


def _gradient(plan: Plan, model: torch.nn.Module) -> str:
    """The most faithful gradient that any attack of the plan takes of the model; ``none`` when none takes any."""
    kinds = {gradient_kind(model, a.options) for a in plan.attacks if a.attack.gradient != "black-box"}
    return next((kind for kind in ("exact", "surrogate") if kind in kinds), min(kinds, default="none"))
