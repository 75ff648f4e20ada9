"""Checking a run again: its files, its images, and what the models say about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rdc_bench.data import load_dataset
from rdc_bench.errors import UserError
from rdc_bench.evaluation.judge import predictions
from rdc_bench.evaluation.plan import plan_model
from rdc_bench.precision import full_float32
from rdc_bench.randomness import Key
from rdc_bench.results.schema import Manifest, ModelEntry
from rdc_bench.results.store import RunFolder
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
def verify_run(run_dir: Path, *, device: str = "cpu", data_dir: Path | None = None, batch: int = 16) -> Verification:
    """Re-check a complete run.

    The files' SHA-256 against the manifest; the images against the dataset's; each stored adversarial image against the threat
    set; and the predictions on it, with the same draws, against the records.

    Raises: ``UserError`` when the folder is not a complete run of ours, or its dataset cannot be had.
    """
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise UserError(f"{run_dir}: no such run")
    manifest, records, images = folder.manifest(), folder.records(), folder.images()
    channels = manifest.models[0].card["image_shape"][0]
    dataset = load_dataset(manifest.dataset, manifest.split, manifest.n, data_dir=data_dir, channels=channels)
    if dataset.sha256 != manifest.data_sha256:
        raise UserError(f"{run_dir}: the images of {manifest.dataset} here are not those of the run (SHA-256 differs)")
    threat, _ = make_threat(manifest.threat, manifest.eps, dataset.image_shape)
    rows = []
    for entry in manifest.models:
        row: dict[str, Any] = {"model": entry.name, "checked": 0, "outside": 0, "differing": 0, "note": _changed(entry)}
        mine = records[records["model"] == entry.name]
        if not row["note"]:
            model = replace(plan_model(entry.reference or entry.name), fixed_noise=entry.fixed_noise).load().to(device)
            for label, adversarial, indices in _stored(images, entry, manifest):
                for part in indices.split(batch) if len(indices) else ():
                    x = dataset.images[part].to(device)
                    candidate = adversarial[part].to(device)
                    keys: list[Key] = [(manifest.seed, i, label, "repeat") for i in part.tolist()]
                    found = predictions(model, candidate, keys, entry.repeats)
                    row["checked"] += len(part)
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


def _stored(images: dict[str, Tensor], entry: ModelEntry, manifest: Manifest) -> list[tuple[str, Tensor, Tensor]]:
    """(attack, images of the whole run, indices to check) for everything that was kept of a model."""
    labels = [attack.label for attack in manifest.attacks]
    if entry.name in images:
        worst = images[f"{entry.name}/attack"]
        return [(label, images[entry.name], (worst == i).nonzero()[:, 0]) for i, label in enumerate(labels)]
    bad = {(f.attack, f.index) for f in manifest.failures if f.model == entry.name}
    return [
        (label, images[f"{entry.name}/{label}"], torch.tensor([i for i in range(manifest.n) if (label, i) not in bad]).long())
        for label in labels
    ]


def _recorded(records: pd.DataFrame, label: str, indices: Tensor) -> Tensor:
    rows = records[records["attack"] == label].pivot(index="index", columns="repeat", values="adversarial_prediction")
    return torch.from_numpy(rows.loc[indices.tolist()].to_numpy(dtype="int64", na_value=-2))
