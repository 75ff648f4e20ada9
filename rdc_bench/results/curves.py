"""Security curves: accuracy against every ε up to a run's, from one run of minimum-norm attacks.

An attack that seeks the nearest adversarial image says more than whether there is one within ε. At a smaller size, the image
counts as broken only if the distance stored with it is no larger::

    rob(ε) = share of images that are right as they are, and for which no attack's image within ε is wrong

so the curve is one minus the distribution function of the distances, from the clean accuracy at 0 to the run's robust accuracy
at its ε. Images that other attacks of the run found nearer count too. Like every figure of an attack it is an upper bound: an
attack that stops short of the nearest image shifts the curve to the right.

A randomised model has no single distance. The attack gives one image, at the distance at which its own decision rule flipped,
and the repeats judge that image; the curve's step there is as high as the share of repeats that it fools.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from rdc_bench.results.schema import CLEAN, Manifest
from rdc_bench.results.statistics import Rate
from rdc_bench.results.summary import Survival, rates, spread, survival, unattacked


class SecurityCurve(NamedTuple):
    """Robust accuracy of one model as a step function of ε: ``avg`` and ``worst`` hold from each ``eps`` on to the next."""

    model: str
    eps: list[float]
    avg: list[Rate]
    worst: list[Rate]


def security_curves(manifest: Manifest, records: pd.DataFrame) -> list[SecurityCurve]:
    """One curve per model, over all attacks of the run, in the manifest's order."""
    return [_curve(entry.name, manifest, records[records["model"] == entry.name]) for entry in manifest.models]


def _curve(model: str, manifest: Manifest, records: pd.DataFrame) -> SecurityCurve:
    clean = unattacked(records[records["attack"] == CLEAN])
    images = np.sort(records["index"].unique())
    survivals, distances = [], []
    for attack in manifest.attacks:
        rows = records[records["attack"] == attack.label]
        if attack.witness and rows.empty:
            continue
        survivals.append(
            spread(survival(rows), rows, records[records["attack"] == CLEAN]) if attack.witness else survival(rows)
        )
        distances.append(rows.groupby("index")["distance"].first().reindex(images).to_numpy())

    breaks = [d[s.decided & (s.avg < clean.avg)] for s, d in zip(survivals, distances, strict=True)]
    eps = np.unique(np.concatenate([[0.0], *breaks, [manifest.eps_value]]))
    eps = eps[eps <= manifest.eps_value]
    avg, worst = [], []
    for size in eps:
        # Distances of images on the ball's surface may pass ε by rounding, and were accepted there.
        within = [(d <= size) | (size == manifest.eps_value) for d in distances]
        left = [_reached(s, clean, near) for s, near in zip(survivals, within, strict=True)]
        average, _, worst_case = rates(left)
        avg.append(average)
        worst.append(worst_case)
    return SecurityCurve(model, eps.tolist(), avg, worst)


def _reached(attacked: Survival, clean: Survival, within: np.ndarray) -> Survival:
    """What an attack leaves when only those of its images count that are ``within`` reach, bool (n,); no verdict stays none."""
    counts = within | ~attacked.decided
    return Survival(*(np.where(counts, after, before) for after, before in zip(attacked, clean, strict=True)))
