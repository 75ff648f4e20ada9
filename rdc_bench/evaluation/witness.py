"""Which images a witness is shown.

A witness is an attack that needs no gradient of the model. It is dear, so it is shown what all other attacks left standing: all
of it on a model that is cheap, and a sample, drawn by key, on one that takes many network evaluations or is random, so that
each look takes several draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rdc_bench.core.randomness import seed_of
from rdc_bench.evaluation.plan import PlannedAttack
from rdc_bench.results.schema import CLEAN, AttackEntry
from rdc_bench.results.trust import path_doubts, standing

#: Network evaluations per image up to which a deterministic model is cheap.
CHEAP = 4.0
#: A witness may take this share of what the other attacks took on a dear model, which is a third of them all ...
SHARE = 0.5
#: ... at this many passes an image (it takes 1,000 to 9,000), ...
PASSES = 2000
#: ... and is shown this many images at least: fewer tell nothing.
LEAST = 8


def most(per_pass: float, random: bool, transferred: bool, spent: float) -> int | None:
    """How many images a witness is shown at most; None for all that stand.

    Args:
        per_pass: network evaluations that classify an image. random: the model is randomised. transferred: the images are made
            on other models, and cost this one nothing but a look. spent: network evaluations of all other attacks.
    """
    if (per_pass <= CHEAP and not random) or transferred:
        return None
    return max(LEAST, round(SHARE * spent / (PASSES * per_pass)))


def chosen(records: pd.DataFrame, others: Sequence[AttackEntry], witness: PlannedAttack, seed: int) -> set[int]:
    """Indices of the images for a witness, from the rows of one model under the clean evaluation and all other attacks."""
    if witness.if_doubted and not path_doubts(records, others):
        return set()
    left = standing(records)
    clean = records[records["attack"] == CLEAN]
    per_pass = float(clean["nfe"].mean())
    spent = float(records.loc[(records["attack"] != CLEAN) & (records["repeat"] == 0), "nfe"].sum())
    count = most(per_pass, bool(records["repeat"].max() > 0), bool(witness.attack.sources), spent)
    return set(sorted(left, key=lambda index: seed_of(seed, index, witness.label, "sample"))[:count])
