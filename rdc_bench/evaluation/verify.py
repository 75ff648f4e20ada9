"""Checking a run again: its files, its images, and what the models say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rdc_bench.data import load_dataset
from rdc_bench.errors import UserError
from rdc_bench.evaluation.judge import predictions
from rdc_bench.evaluation.mending import mended
from rdc_bench.evaluation.plan import plan_model
from rdc_bench.precision import full_float32
from rdc_bench.randomness import Key
from rdc_bench.results.schema import ModelEntry
from rdc_bench.results.store import RunFolder
from rdc_bench.stages import Report, unheard
from rdc_bench.threats import make_threat


@dataclass(frozen=True)
class Verification:
    """Outcome per model: images checked, outside the threat set, and with other predictions than recorded."""

    run: str
    models: list[dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(row["outside"] == 0 and row["differing"] == 0 and row["note"] == "" for row in self.models)


@full_float32()
def verify_run(
    run_dir: Path, *, device: str = "cpu", data_dir: Path | None = None, batch: int = 16, report: Report = unheard
) -> Verification:
    """Re-check a complete run.

    The files' SHA-256 against the manifest; the images against the dataset's; each stored adversarial image against the threat
    set; and the predictions on it, with the same draws, against the records. ``report`` is told what is being done.

    Raises: ``UserError`` when the folder is not a complete run of ours, or its dataset cannot be had.
    """
    report(f"reading {run_dir}")
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise UserError(f"{run_dir}: no such run")
    manifest, records, images = folder.manifest(), folder.records(), folder.images()
    report(f"reading {manifest.dataset} ({manifest.split})")
    channels = manifest.models[0].card["image_shape"][0]
    dataset = load_dataset(manifest.dataset, manifest.split, manifest.n, data_dir=data_dir, channels=channels)
    if dataset.sha256 != manifest.data_sha256:
        raise UserError(f"{run_dir}: the images of {manifest.dataset} here are not those of the run (SHA-256 differs)")
    threat, _ = make_threat(manifest.threat, manifest.eps, dataset.image_shape)
    labels = [attack.label for attack in manifest.attacks]
    rows = []
    for entry in manifest.models:
        row: dict[str, Any] = {"model": entry.name, "checked": 0, "outside": 0, "differing": 0, "note": _changed(entry)}
        mine = records[records["model"] == entry.name]
        if not row["note"]:
            report(f"loading {entry.name}")
            model = replace(plan_model(entry.reference or entry.name), fixed_noise=entry.fixed_noise).load()
            model = (mended(model, entry.admission) if entry.admission else model).to(device)
            stored = _stored(images, entry, labels, mine)
            kept = sum(len(indices) for _, _, indices in stored)
            for label, adversarial, indices in stored:
                for part in indices.split(batch) if len(indices) else ():
                    x = dataset.images[part].to(device)
                    candidate = adversarial[part].to(device)
                    keys: list[Key] = [(manifest.seed, i, label, "repeat") for i in part.tolist()]
                    found = predictions(model, candidate, keys, entry.repeats)
                    row["checked"] += len(part)
                    report(f"checking {entry.name}", row["checked"], kept)
                    row["outside"] += int((~threat.contains(x, candidate)).sum())
                    row["differing"] += int((found != _recorded(mine, label, part)).any(dim=1).sum())
        rows.append(row)
    return Verification(str(run_dir), rows)


def _changed(entry: ModelEntry) -> str:
    """Why the model that the run used cannot be checked any more; empty when it can."""
    try:
        here = plan_model(entry.reference or entry.name)
    except UserError as error:
        return str(error)
    if here.weights != entry.weights or here.settings != entry.settings:
        return "the model's card or weights have changed since the run"
    return ""


def _stored(
    images: dict[str, Tensor], entry: ModelEntry, labels: Sequence[str], records: pd.DataFrame
) -> list[tuple[str, Tensor, Tensor]]:
    """(attack, images of the whole run, indices to check) for everything that was kept of a model with these ``records``."""
    if entry.name in images:
        worst = images[f"{entry.name}/attack"]
        return [(label, images[entry.name], (worst == i).nonzero()[:, 0]) for i, label in enumerate(labels)]
    judged = records[records["status"] == "ok"]
    indices = {label: sorted(set(rows["index"])) for label, rows in judged.groupby("attack")}
    return [(label, images[f"{entry.name}/{label}"], torch.tensor(indices.get(label, [])).long()) for label in labels]


def _recorded(records: pd.DataFrame, label: str, indices: Tensor) -> Tensor:
    rows = records[records["attack"] == label].pivot(index="index", columns="repeat", values="adversarial_prediction")
    return torch.from_numpy(rows.loc[indices.tolist()].to_numpy(dtype="int64", na_value=-2))
