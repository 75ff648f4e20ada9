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
from rdc_bench.results.statistics import Rate, wilson


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
    clean = records[records["attack"] == CLEAN]
    right = (clean["clean_prediction"] == clean["label"]).groupby(clean["index"]).mean().to_numpy()
    attacked = records[records["attack"] != CLEAN]
    robust = (attacked["clean_prediction"] == attacked["label"]) & (attacked["adversarial_prediction"] == attacked["label"])
    per_image = [attacked["attack"], attacked["index"]]
    ok = (attacked["status"] == "ok").groupby(per_image).all().unstack(0).to_numpy()  # (images, attacks)
    rates = robust.groupby(per_image).mean().unstack(0).to_numpy()
    distances = attacked["distance"].groupby(per_image).first().unstack(0).to_numpy()

    breaks = distances[ok & (rates < right[:, None])]
    eps = np.unique(np.concatenate([[0.0], breaks, [manifest.eps_value]]))
    eps = eps[eps <= manifest.eps_value]
    avg, worst = [], []
    for size in eps:
        # Distances of images on the ball's surface may pass ε by rounding, and were accepted there.
        within = ok & ((distances <= size) | (size == manifest.eps_value))
        known = np.minimum(right, np.where(within, rates, 1.0).min(axis=1))
        undecided = (known == 1.0) & ~ok.all(axis=1)
        n = len(known)
        avg.append(wilson(float(np.where(undecided, 0.0, known).mean()), n, upper_value=float(known.mean())))
        unbroken = known == 1.0
        worst.append(wilson(float((unbroken & ~undecided).mean()), n, upper_value=float(unbroken.mean())))
    return SecurityCurve(model, eps.tolist(), avg, worst)
