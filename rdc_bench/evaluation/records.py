"""What a run records: its manifest, and all shards merged into the rows and images of the whole."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.version import __version__
from rdc_bench.evaluation.plan import Plan
from rdc_bench.evaluation.shards import Job, spans
from rdc_bench.results.schema import CLEAN, Failure, Manifest, ModelEntry, Record
from rdc_bench.results.store import RunFolder


def manifest_of(plan: Plan) -> Manifest:
    """The manifest of a run that begins now."""
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
            "rdc_bench": __version__,
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
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return {}
    described = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(described, capture_output=True, text=True, check=False)
    return {"commit": done.stdout.strip()} if done.returncode == 0 else {}


def merged(plan: Plan, folder: RunFolder, entries: list[ModelEntry]) -> tuple[list[Record], dict[str, Tensor]]:
    """All rows in order, and for each model the worst adversarial image of each input (or all of them)."""
    rows: list[Record] = []
    images: dict[str, Tensor] = {}
    for number, entry in enumerate(entries):
        found = []
        for attack_number in range(1 + len(plan.attacks)):
            parts = []
            for span in spans(plan, entry.stochastic):
                shard = folder.shard(Job(number, attack_number, *span).name)
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


def _worst_attack(rows: list[Record], entry: ModelEntry, labels: list[str], n: int) -> Tensor:
    """Per image, the number of the attack that broke it in most repeats (the first of equals); −1 when none was judged."""
    survived = torch.full((len(labels), n), torch.inf)
    for row in rows:
        if row.model == entry.name and row.attack != CLEAN and row.status == "ok":
            place = labels.index(row.attack), row.index
            survived[place] = survived[place].nan_to_num(posinf=0.0) + (row.adversarial_prediction == row.label)
    best = survived.argmin(dim=0)
    return torch.where(survived.isinf().all(dim=0), -1, best)


def failures(rows: list[Record]) -> list[Failure]:
    """What went wrong, once for each attack and image."""
    return [
        Failure(**{field: getattr(row, field) for field in ("model", "attack", "index", "status", "reason")})
        for row in rows
        if row.status != "ok" and row.repeat == 0
    ]


def evaluations(rows: list[Record]) -> tuple[float, float]:
    """Network evaluations of a run, forward and backward; each row of an image carries its attack's, those of all repeats."""
    once = [row for row in rows if row.repeat == 0 or row.attack == CLEAN]
    backward = sum(row.nfe_backward for row in once)
    return sum(row.nfe for row in once) - backward, backward
