"""Running a plan: load each model, work through the shards that are not done yet, merge, summarise."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
import platform
import shlex
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import rdc_bench
from rdc_bench.attacks.gradient import gradient_kind
from rdc_bench.errors import UserError
from rdc_bench.evaluation.admission import IMAGES, admit
from rdc_bench.evaluation.announce import announce
from rdc_bench.evaluation.engines import Engine, find_engine
from rdc_bench.evaluation.execute import Executor, Given, Job, Span, Task
from rdc_bench.evaluation.mending import mended
from rdc_bench.evaluation.plan import Plan, PlannedAttack, PlannedModel, RunConfig, make_plan
from rdc_bench.evaluation.reported import reported_otherwise
from rdc_bench.evaluation.witness import chosen
from rdc_bench.files import check_writable
from rdc_bench.global_generators import preserved
from rdc_bench.results.admission import Admission
from rdc_bench.results.diagnosis import failed_diagnoses, masked
from rdc_bench.results.schema import CLEAN, Failure, Manifest, ModelEntry, RunStatus
from rdc_bench.results.store import RunFolder, Shard
from rdc_bench.results.summary import SENSES, ModelSummary, summarize

log = logging.getLogger(__name__)


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

#: Images per shard: little work is lost when a run is killed, and batches are large enough for small networks.
SHARD = {True: 16, False: 64}  # by whether the model is randomised (and so, as a rule, expensive)


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
        announce(runs, jobs)
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
    manifest = folder.manifest() if folder.exists else _manifest(plan)
    earlier = manifest.wall_seconds

    def stamped(status: RunStatus) -> Manifest:
        return manifest.model_copy(update={"status": status, "wall_seconds": earlier + time.monotonic() - began})

    folder.write_manifest(stamped("started"))
    try:
        entries = _execute(plan, engine, folder, progress, say, admissions)
        log.debug("merging the shards")
        rows, images = _merged(plan, folder, entries)
        failures = _failures(rows)
        final = stamped("complete with failures" if failures else "complete")
        once = [row for row in rows if row["repeat"] == 0 or row["attack"] == CLEAN]  # an attack's cost is that of all repeats
        backward = sum(row["nfe_backward"] for row in once)
        forward = sum(row["nfe"] for row in once) - backward
        update = {"models": entries, "failures": failures, "nfe_forward": forward, "nfe_backward": backward}
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


def _manifest(plan: Plan) -> Manifest:
    config = plan.config
    return Manifest(
        identity=plan.identity,
        status="started",
        command=shlex.join(["rdc-bench", *sys.argv[1:]]) if "rdc-bench" in Path(sys.argv[0]).name else "rdc_bench.run(...)",
        profile=config.profile,
        note=plan.note,
        threat=config.threat,
        threat_kind=plan.threat.kind,
        eps=plan.eps.text,
        eps_value=float(plan.eps),
        dataset=plan.dataset.name,
        split=plan.dataset.split,
        data_source=plan.dataset.provenance,
        data_sha256=plan.dataset.sha256,
        n=len(plan.dataset),
        seed=config.seed,
        repeats=plan.repeats,
        models=[],
        attacks=[a.entry for a in plan.attacks],
        versions={
            "rdc_bench": rdc_bench.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "pyautoattack")},
            **_commit(),
        },
        hardware={
            "device": config.device,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            **({"engine": config.engine} if config.engine != "local" else {}),
            **({"gpu": torch.cuda.get_device_name()} if config.device.startswith("cuda") else {}),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _commit() -> dict[str, str]:
    """The commit of this package's checkout, with ``-dirty`` for uncommitted changes; nothing for an installed wheel."""
    checkout = Path(rdc_bench.__file__).parents[1]
    if not (checkout / ".git").exists():
        return {}
    described = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(described, capture_output=True, text=True, check=False)
    return {"commit": done.stdout.strip()} if done.returncode == 0 else {}


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
    tally = _Tally(plan, progress, say)
    finished = engine(_pending(plan, folder, entries, tally, admissions), tally)
    with contextlib.closing(finished):  # an engine lets go of what is under way, at once
        for job, shard in finished:
            folder.write_shard(job.name, shard)
            tally.add(job, shard)
    return [entry.model_copy(update={"notes": tally.notes[number]}) for number, entry in enumerate(entries)]


def _pending(
    plan: Plan, folder: RunFolder, entries: list[ModelEntry], tally: _Tally, admissions: dict[str, Admission]
) -> Iterator[Task]:
    """What is not on disk yet, one model after another; each is loaded when its turn comes, and entered."""
    for number, planned in enumerate(plan.models):
        executor, entry = _loaded(plan, planned, admissions[planned.name])
        entries.append(entry)
        for attack in range(1 + len(plan.attacks)):
            for start, stop in _spans(len(plan.dataset), SHARD[entry.stochastic]):
                job = Job(number, attack, start, stop)
                shard = folder.shard(job.name)
                if shard is None:
                    yield Task(job, executor)
                else:
                    tally.add(job, shard)
        del executor
        gc.collect()


class _Tally:
    """What is known of the shards that are done: what others build on, what they tell of models, counts for the progress."""

    def __init__(self, plan: Plan, progress: Progress, say: Say) -> None:
        self.notes: defaultdict[int, list[str]] = defaultdict(list)  # by model
        self._plan = plan
        self._progress = progress
        self._say = say
        self._done = 0
        self._clean: dict[Span, Tensor] = {}
        self._rows: dict[int, list[dict]] = defaultdict(list)  # by model, as the next two
        self._finished: Counter[int] = Counter()  # images × attacks, the clean evaluation and witnesses left out
        self._chosen: dict[tuple[int, int], set[int]] = {}  # by model and witness
        self._robust: Counter[tuple[int, int]] = Counter()  # by model and attack, as the next
        self._judged: Counter[tuple[int, int]] = Counter()

    def add(self, job: Job, shard: Shard) -> None:
        images = job.stop - job.start
        self._rows[job.model] += shard.rows
        if job.attack == 0:
            values = torch.tensor([row["clean_prediction"] for row in shard.rows])
            self._clean[job.span] = values.unflatten(0, (images, -1))
        elif not self._planned(job).witness:
            self._finished[job.model] += images
        place = job.model, job.attack
        judged = len({row["index"] for row in shard.rows})
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
            ours = [row for row in self._rows[job.model] if row["attack"] in {CLEAN, *(entry.label for entry in entries)}]
            self._chosen[place] = chosen(pd.DataFrame(ours), entries, self._planned(job), self._plan.config.seed)
        return Given(clean, torch.tensor([index in self._chosen[place] for index in range(job.start, job.stop)]))

    def _compare_with_reported(self, model: int) -> None:
        clean = [row for row in self._rows[model] if row["attack"] == CLEAN]
        right = sum(row["clean_prediction"] == row["label"] for row in clean)
        planned = self._plan.models[model]
        self.notes[model] = reported_otherwise(planned.card, right / len(clean), len(self._plan.dataset))
        for note in self.notes[model]:
            self._say(f"model {planned.name}: {note}")

    def _planned(self, job: Job) -> PlannedAttack:
        return self._plan.attacks[job.attack - 1]


def work(plan: Plan) -> int:
    """How many images × attacks a plan asks for, the clean evaluation among them."""
    return len(plan.models) * len(plan.dataset) * (1 + len(plan.attacks))


def jobs(plan: Plan, model: int, stochastic: bool) -> list[Job]:
    """Every shard of a model."""
    spans = list(_spans(len(plan.dataset), SHARD[stochastic]))
    return [Job(model, attack, *span) for attack in range(1 + len(plan.attacks)) for span in spans]


def _failures(rows: list[dict]) -> list[Failure]:
    return [
        Failure(**{field: row[field] for field in ("model", "attack", "index", "status", "reason")})
        for row in rows
        if row["status"] != "ok" and row["repeat"] == 0
    ]


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


def _spans(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(n, start + size)


def _wrong(shard: Shard) -> int:
    """Images of a shard that are not right in every repeat, on the clean image and (if attacked) on the adversarial one."""
    return len(
        {
            row["index"]
            for row in shard.rows
            if row["clean_prediction"] != row["label"]
            or (row["attack"] != CLEAN and row["adversarial_prediction"] != row["label"])
        }
    )


def _merged(plan: Plan, folder: RunFolder, entries: list[ModelEntry]) -> tuple[list[dict], dict[str, Tensor]]:
    """All rows in order, and for each model the worst adversarial image of each input (or all of them)."""
    rows: list[dict] = []
    images: dict[str, Tensor] = {}
    for number, entry in enumerate(entries):
        found = []
        for attack_number in range(1 + len(plan.attacks)):
            parts = []
            for start, stop in _spans(len(plan.dataset), SHARD[entry.stochastic]):
                shard = folder.shard(Job(number, attack_number, start, stop).name)
                if shard is None:
                    raise UserError(f"{folder.path}: a finished shard disappeared; run the same command again")
                rows += shard.rows
                parts.append(shard.images.get("adversarial"))
            if attack_number:
                found.append(torch.cat([part for part in parts if part is not None]))
        worst = _worst_attack(rows, entry, [a.label for a in plan.attacks], len(plan.dataset))
        images[f"{entry.name}/attack"] = worst
        stacked = torch.stack(found)
        if plan.config.keep == "all":
            images |= {f"{entry.name}/{a.label}": adversarial for a, adversarial in zip(plan.attacks, found, strict=True)}
        else:
            images[entry.name] = stacked[worst.clamp_min(0), torch.arange(len(plan.dataset))]
    return rows, images


def _worst_attack(rows: list[dict], entry: ModelEntry, labels: list[str], n: int) -> Tensor:
    """Per image, the number of the attack that broke it in most repeats (the first of equals); −1 when none was judged."""
    survived = torch.full((len(labels), n), torch.inf)
    for row in rows:
        if row["model"] == entry.name and row["attack"] != CLEAN and row["status"] == "ok":
            place = labels.index(row["attack"]), row["index"]
            survived[place] = survived[place].nan_to_num(posinf=0.0) + (row["adversarial_prediction"] == row["label"])
    best = survived.argmin(dim=0)
    return torch.where(survived.isinf().all(dim=0), -1, best)
