"""What a run amounts to: rates per model and attack, and over the union of attacks.

Definitions. *Clean accuracy*: correct on the clean image, mean over repeats. *Robust accuracy of an attack*: correct on the
clean and on the adversarial image, the mean over the repeats (``avg``), in all of them (``worst``), and by the vote of all of
them (``majority``: the accuracy of a defender who classifies by the vote of as many draws). *Robust accuracy*: over the union
of the attacks, worst case per image. An image with an attack that failed, and that no other attack broke in every sense of
the column, is *undecided*: the value counts it as broken and the upper bound as robust.

A *witness* is shown some of the images that the other attacks left standing. Its own figures are over those; over the union, an
image that it was not shown, or that it failed on, counts as the others left it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rdc_bench.results.schema import CLEAN, AttackEntry, Manifest
from rdc_bench.results.statistics import Rate, wilson
from rdc_bench.results.trust import Witnessed, doubts, half_followed, witnessed

#: What the repeats of an image are taken together as.
SENSES = ("avg", "majority", "worst")


class AttackSummary(NamedTuple):
    """One attack on one model.

    Attributes:
        status: the worst status of any image. failed: images without a verdict.
        partly: images left standing on which some gradients were zero or not finite.
        witnessed: of a witness, whose rates are over the images shown to it.
    """

    avg: Rate
    majority: Rate
    worst: Rate
    status: str
    failed: int
    partly: int = 0
    witnessed: Witnessed | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that ``run --json`` prints for an attack."""
        shown = {"witness": self.witnessed._asdict()} if self.witnessed else {}
        counts = {"failed": self.failed, "partly": self.partly}
        return {**_in_every_sense(self), "status": self.status, **counts, **shown}


class ModelSummary(NamedTuple):
    """One model of a run.

    Attributes:
        robust_images: per image, in index order, whether it is robust in the worst case.
        doubts: what speaks against the gradients that the attacks followed; if anything does, robust figures are upper bounds.
    """

    model: str
    title: str
    role: str
    status: str
    clean: Rate
    avg: Rate
    majority: Rate
    worst: Rate
    undecided: int
    attacks: dict[str, AttackSummary]
    nfe_per_image: float
    seconds_per_image: float
    robust_images: np.ndarray
    doubts: tuple[str, ...] = ()

    @property
    def upper_bound(self) -> bool:
        """Whether robust accuracies are to be read as upper bounds alone."""
        return bool(self.doubts)

    def as_json(self) -> dict[str, Any]:
        """The object that ``run --json`` and ``report --json`` print for a model."""
        return {
            "model": self.model,
            "title": self.title,
            "role": self.role,
            "status": self.status,
            "clean": self.clean.as_json(),
            "robust": {**_in_every_sense(self), "undecided": self.undecided},
            "attacks": {name: attack.as_json() for name, attack in self.attacks.items()},
            "nfe_per_image": self.nfe_per_image,
            "seconds_per_image": self.seconds_per_image,
            "upper_bound": self.upper_bound,
            "doubts": list(self.doubts),
        }


def summarize(manifest: Manifest, records: pd.DataFrame) -> list[ModelSummary]:
    """One summary per model, in the manifest's order."""
    return [
        _model(entry.name, entry.card, records[records["model"] == entry.name], manifest.attacks) for entry in manifest.models
    ]


def _in_every_sense(summary: ModelSummary | AttackSummary) -> dict[str, dict[str, float]]:
    return {sense: getattr(summary, sense).as_json() for sense in SENSES}


class Survival(NamedTuple):
    """What one attack, or none, left of each image, (n,): a share in [0, 1] in each sense, NaN where there was no verdict."""

    avg: np.ndarray
    majority: np.ndarray
    worst: np.ndarray

    @property
    def decided(self) -> np.ndarray:
        """Where the attack gave a verdict, bool (n,)."""
        return ~np.isnan(self.worst)


def _model(name: str, card: dict[str, Any], records: pd.DataFrame, entries: Sequence[AttackEntry]) -> ModelSummary:
    clean = records[records["attack"] == CLEAN]
    n = clean["index"].nunique()
    survivals: list[Survival] = []
    attacks: dict[str, AttackSummary] = {}
    for entry in entries:
        rows = records[records["attack"] == entry.label]
        if entry.witness and rows.empty:  # there was nothing to show it, or no reason to
            continue
        own = survival(rows)
        bad = [status for status in ("failed", "invalid") if (rows["status"] == status).any()]
        seen = witnessed(records, entries, entry) if entry.witness else None
        failed, partly = int((~own.decided).sum()), len(half_followed(rows))
        attacks[entry.label] = AttackSummary(*rates([own]), bad[0] if bad else "ok", failed, partly, seen)
        survivals.append(spread(own, rows, clean) if entry.witness else own)
    avg, majority, worst = rates(survivals)
    unbroken, decided = _union([s.worst for s in survivals]) == 1.0, _all_decided(survivals)
    return ModelSummary(
        model=name,
        title=str(card.get("title", name)),
        role=str(card.get("role", "defense")),
        status="incomplete" if any(a.failed and not a.witnessed for a in attacks.values()) else "ok",
        clean=wilson(float((clean["clean_prediction"] == clean["label"]).mean()), n),
        avg=avg,
        majority=majority,
        worst=worst,
        undecided=int((unbroken & ~decided).sum()),
        attacks=attacks,
        nfe_per_image=float(clean["nfe"].mean()),
        seconds_per_image=float(clean["seconds"].mean()),
        robust_images=unbroken & decided,
        doubts=doubts(records, entries),
    )


def spread(own: Survival, rows: pd.DataFrame, clean: pd.DataFrame) -> Survival:
    """What a witness left of all images of a run: those it has no verdict on are as they were before any attack.

    Args: own: of the images shown to it. rows: its rows. clean: those of the clean images.
    """
    everyone = unattacked(clean)
    places = np.searchsorted(np.sort(clean["index"].unique()), np.sort(rows["index"].unique()))
    for share, of_shown in zip(everyone, own, strict=True):
        share[places] = np.where(own.decided, of_shown, share[places])
    return everyone


def unattacked(clean: pd.DataFrame) -> Survival:
    """What is right of each image before any attack, from the clean rows of one model."""
    label, predicted = _matrix(clean, "label"), _matrix(clean, "clean_prediction")
    right = predicted == label
    return Survival(right.mean(axis=1), _vote_is_right(predicted, label).astype(float), right.all(axis=1).astype(float))


def survival(rows: pd.DataFrame) -> Survival:
    """What one attack left, from its rows on one model."""
    label, clean, adversarial = (_matrix(rows, column) for column in ("label", "clean_prediction", "adversarial_prediction"))
    robust = (clean == label) & (adversarial == label)
    by_vote = _vote_is_right(clean, label) & _vote_is_right(adversarial, label)
    decided = (rows["status"] == "ok").groupby(rows["index"]).all().to_numpy()
    return Survival(*(np.where(decided, share, np.nan) for share in (robust.mean(axis=1), by_vote, robust.all(axis=1))))


def _matrix(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Classes as an array (images in index order, repeats); −2 where there is none."""
    table = rows.pivot(index="index", columns="repeat", values=column)
    return table.to_numpy(dtype="float64", na_value=-2).astype(int)


def _vote_is_right(predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether the true class has more votes than any other, (n,). A tie is a wrong answer: it must not favour the defence.

    Args: predictions, label: (n, repeats). Logits that were not finite (−1) are votes for a wrong class.
    """
    right = (predictions == label).sum(axis=1)
    wrong = np.where(predictions == label, -3, predictions)  # −3: no vote
    most = [(wrong == c).sum(axis=1) for c in np.unique(wrong) if c != -3]
    return right > np.max([*most, np.zeros_like(right)], axis=0)


def rates(survivals: list[Survival]) -> tuple[Rate, Rate, Rate]:
    """``avg``, ``majority`` and ``worst`` over the union of the attacks given.

    The average takes, per image, the attack that breaks it most often over the repeats.
    """
    decided = _all_decided(survivals)

    def rate(sense: str) -> Rate:
        known = _union([getattr(s, sense) for s in survivals])
        return wilson(float(np.where(decided, known, 0.0).mean()), len(known), upper_value=float(known.mean()))

    avg, majority, worst = (rate(sense) for sense in SENSES)
    return avg, majority, worst


def _all_decided(survivals: list[Survival]) -> np.ndarray:
    return np.logical_and.reduce([s.decided for s in survivals])


def _union(shares: list[np.ndarray]) -> np.ndarray:
    """Per image, the lowest share of any attack that is known; 1 when none is."""
    return np.nanmin(np.stack([*shares, np.ones(len(shares[0]))]), axis=0)
