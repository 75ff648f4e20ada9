"""What a run amounts to: rates per model and attack, and over the union of attacks.

Definitions. *Clean accuracy*: correct on the clean image, mean over repeats. *Robust accuracy of an attack*: correct on the
clean and on the adversarial image, the mean over the repeats (``avg``) and in all of them (``worst``). *Robust accuracy*:
over the union of the attacks, worst case per image. An image with an attack that failed, and that no other attack broke in
every sense of the column, is *undecided*: the value counts it as broken and the upper bound as robust.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rdc_bench.results.schema import CLEAN, Manifest
from rdc_bench.results.statistics import Rate, wilson


class AttackSummary(NamedTuple):
    """One attack on one model. ``status``: the worst status of any image."""

    avg: Rate
    worst: Rate
    status: str
    failed: int


class ModelSummary(NamedTuple):
    """One model of a run. ``robust_images``: per image, in index order, whether it is robust in the worst case."""

    model: str
    title: str
    role: str
    status: str
    clean: Rate
    avg: Rate
    worst: Rate
    undecided: int
    attacks: dict[str, AttackSummary]
    nfe_per_image: float
    seconds_per_image: float
    robust_images: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """The object that ``run --json`` and ``report --json`` print for a model."""
        return {
            "model": self.model,
            "title": self.title,
            "role": self.role,
            "status": self.status,
            "clean": self.clean._asdict(),
            "robust": {"avg": self.avg._asdict(), "worst": self.worst._asdict(), "undecided": self.undecided},
            "attacks": {
                name: {"avg": a.avg._asdict(), "worst": a.worst._asdict(), "status": a.status, "failed": a.failed}
                for name, a in self.attacks.items()
            },
            "nfe_per_image": self.nfe_per_image,
            "seconds_per_image": self.seconds_per_image,
        }


def summarize(manifest: Manifest, records: pd.DataFrame) -> list[ModelSummary]:
    """One summary per model, in the manifest's order."""
    return [
        _model(entry.name, entry.card, records[records["model"] == entry.name], [a.label for a in manifest.attacks])
        for entry in manifest.models
    ]


def _model(name: str, card: dict[str, Any], records: pd.DataFrame, labels: list[str]) -> ModelSummary:
    clean = records[records["attack"] == CLEAN]
    n = clean["index"].nunique()
    correct = _matrix(clean, clean["clean_prediction"] == clean["label"])
    attacks: dict[str, AttackSummary] = {}
    rates: list[np.ndarray] = []
    decided: list[np.ndarray] = []
    for label in labels:
        rows = records[records["attack"] == label]
        robust = _matrix(rows, (rows["clean_prediction"] == rows["label"]) & (rows["adversarial_prediction"] == rows["label"]))
        ok = np.all(_matrix(rows, rows["status"] == "ok"), axis=1)
        rates.append(np.where(ok, robust.mean(axis=1), np.nan))
        decided.append(ok)
        bad = [status for status in ("failed", "invalid") if (rows["status"] == status).any()]
        attacks[label] = AttackSummary(*_rates(rates[-1:], decided[-1:]), bad[0] if bad else "ok", int((~ok).sum()))
    avg, worst = _rates(rates, decided)
    robust_images, undecided = _worst_case(rates, decided)
    failed = any(a.failed for a in attacks.values())
    return ModelSummary(
        model=name,
        title=str(card.get("title", name)),
        role=str(card.get("role", "defense")),
        status="incomplete" if failed else "ok",
        clean=wilson(float(correct.mean()), n),
        avg=avg,
        worst=worst,
        undecided=int(undecided.sum()),
        attacks=attacks,
        nfe_per_image=float(clean["nfe"].mean()),
        seconds_per_image=float(clean["seconds"].mean()),
        robust_images=robust_images,
    )


def _matrix(rows: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """Values as an array (images in index order, repeats)."""
    table = rows.assign(value=values.astype(bool)).pivot(index="index", columns="repeat", values="value")
    return table.to_numpy(dtype=bool)


def _rates(rates: list[np.ndarray], decided: list[np.ndarray]) -> tuple[Rate, Rate]:
    """``avg`` and ``worst`` over the union of the attacks given.

    The average takes, per image, the attack that breaks it most often over the repeats.
    """
    known = _union(rates)
    robust, undecided = _worst_case(rates, decided)
    n = len(known)
    avg = wilson(float(np.where(undecided, 0.0, known).mean()), n, upper_value=float(known.mean()))
    worst = wilson(float(robust.mean()), n, upper_value=float((robust | undecided).mean()))
    return avg, worst


def _worst_case(rates: list[np.ndarray], decided: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Per image: robust in all repeats of all attacks; and undecided (not broken by any, but some attack failed)."""
    unbroken = _union(rates) == 1.0
    all_decided = np.logical_and.reduce(decided)
    return unbroken & all_decided, unbroken & ~all_decided


def _union(rates: list[np.ndarray]) -> np.ndarray:
    """Per image, the lowest rate of any attack that is known; 1 when none is."""
    return np.nanmin(np.stack([*rates, np.ones(len(rates[0]))]), axis=0)
