"""Whether the gradients that an attack followed can be trusted, judged from a run's records.

Three signs, after Athalye et al. 2018 (arXiv 1802.00420, section 3.1), Carlini et al. 2019 (arXiv 1902.06705, section 4) and
Pintor et al. 2022 (arXiv 2106.09947): the loss does not change as the gradient promised, along the attack's own path; it never
rises there; and a *witness*, an attack that needs no gradient of the model, breaks images that the attacks along the gradient
left standing. What was measured on models whose gradients are right is in ``docs/explanation/diagnose.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from scipy.stats import binomtest

from rdc_bench.results.schema import CLEAN, AttackEntry
from rdc_bench.results.statistics import wilson

#: Of :func:`rdc_bench.evaluation.slopes.disagreement`: above it, promise and change differ by a factor of more than 1.67.
TOLERANCE = 0.25
#: Share of images with a sign, at the lower end of its interval, above which gradients are doubted.
FAIL = 0.25
#: Share of what gradients left standing that a witness breaks by its own merit, where gradients are right, at most.
CHANCE = 0.1
#: How improbable more than that must be before gradients are said to mislead.
SIGNIFICANT = 0.01

#: What to do about such doubts.
NEXT = "see `rdc-bench diagnose`, and attack without gradients (ensemble, square-eot)"


class Witnessed(NamedTuple):
    """What a witness did: images left standing by the others, how many of them it was shown, and how many it broke."""

    standing: int
    tried: int
    broke: int


def path_doubts(records: pd.DataFrame, attacks: Sequence[AttackEntry]) -> list[str]:
    """What speaks against the gradients along the attacks' paths, from the rows of one model: a line per attack and sign."""
    doubts = []
    for attack in attacks:
        if attack.witness:  # it needs none
            continue
        rows = records[(records["attack"] == attack.label) & (records["repeat"] == 0)]
        checked = rows["slope_error"].dropna().astype(float)
        wrong = int((checked > TOLERANCE).sum())
        if wrong and wilson(wrong / len(checked), len(checked)).low > FAIL:
            of = f"{wrong} of {len(checked)} images"
            doubts.append(f"{attack.label}: the loss does not change as the gradient promises ({of})")
        rose = rows["rose"].dropna().astype(bool)
        still = int((~rose).sum())
        if still and wilson(still / len(rose), len(rose)).low > FAIL:
            doubts.append(f"{attack.label}: the loss never rises along the gradient ({still} of {len(rose)} images)")
    return doubts


def doubts(records: pd.DataFrame, attacks: Sequence[AttackEntry]) -> tuple[str, ...]:
    """All that speaks against the gradients of one model, from its rows: one line each; none where they can be trusted."""
    found = path_doubts(records, attacks)
    for attack in attacks:
        if not attack.witness:
            continue
        seen = witnessed(records, attacks, attack)
        if seen.broke and binomtest(seen.broke, seen.tried, CHANCE, alternative="greater").pvalue < SIGNIFICANT:
            of = f"{seen.broke} of {seen.tried} images that gradients left standing"
            found.append(f"{attack.label}: breaks {of}, without a gradient of the model")
    return tuple(found)


def witnessed(records: pd.DataFrame, attacks: Sequence[AttackEntry], witness: AttackEntry) -> Witnessed:
    """What became of a witness, from the rows of one model."""
    rows = records[records["attack"] == witness.label]
    tried = set(rows["index"])
    broke = tried - standing(rows)
    return Witnessed(len(standing(records, [a.label for a in attacks if not a.witness])), len(tried), len(broke))


def standing(records: pd.DataFrame, labels: Sequence[str] | None = None) -> set[int]:
    """The images that are right in most repeats, on the clean image and after every attack of ``labels`` (all in ``records``).

    An attack that failed on an image has not broken it.
    """
    attacked = records[records["attack"] != CLEAN] if labels is None else records[records["attack"].isin(labels)]
    clean_right = (records["clean_prediction"] == records["label"]).groupby(records["index"]).mean()
    left = set(clean_right.index[clean_right > 0.5])
    judged = attacked[attacked["status"] == "ok"]
    right = (judged["adversarial_prediction"] == judged["label"]).astype(float)
    share = right.groupby([judged["index"], judged["attack"]]).mean()
    return left - set(share.index[share <= 0.5].get_level_values(0))


def half_followed(rows: pd.DataFrame) -> set[int]:
    """The images that one attack left standing though some of the gradients it took there could not be followed."""
    return set(rows.loc[rows["gradients"] == "partly", "index"]) & standing(rows)
