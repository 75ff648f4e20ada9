"""The worst of many common corruptions (Hendrycks & Dietterich 2019, arXiv 1903.12261)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import look
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count
from rdc_bench.threats import CorruptionsThreat
from rdc_bench.threats.corruptions import DRAWS, KINDS, corrupt


@attack("corruptions", threats=["corruptions"], gradient="black-box")
def corruptions(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: CorruptionsThreat,
    *,
    generators: Sequence[torch.Generator],
    draws: Annotated[int, Ge(1), Le(DRAWS)] = DRAWS,
    eot: Count = 1,
) -> Tensor:
    """The worst of the fifteen corruptions of ImageNet-C at severity eps, in several draws each.

    A worst case over corruptions, where benchmarks report the mean. What is random in them depends on the image alone, so that
    it can be made again; the generators are not used.

    Options:
        draws: versions of each corruption that are tried. eot: draws of the model's randomness averaged for each.
    """
    best = Best(model, x)
    for kind in KINDS:
        for draw in range(draws):
            if best.complete:
                return best.points
            points = corrupt(x, kind, threat.severity, draw)
            best.offer(points, *look(model, points, y, margin, eot), y)
    return best.points
