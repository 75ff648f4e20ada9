"""Objectives that attacks maximise. All map logits (B, K) and labels (B,) to one value per image, (B,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``−log softmax(f)_y``. Underflows when the logits saturate."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``max_{j≠y} f_j − f_y`` (Carlini & Wagner 2017, arXiv 1608.04644): positive exactly when misclassified."""
    return _others(logits, y).amax(dim=1) - _at(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio ``−(f_y − max_{j≠y} f_j) / (f_π1 − f_π3)`` (Croce & Hein 2020, arXiv 2003.01690, eq. 6).

    ``π`` sorts the logits in descending order; invariant to shift and scale. Needs three classes.

    Capped at 1, which it passes when the true class is not among the first three: the ratio has poles there, and near one of
    them a single draw of a randomised model would outweigh all others in the mean. A deterministic model is fooled long before.
    """
    ordered = logits.sort(dim=1, descending=True).values
    return (margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)).clamp(max=1)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """``−(f_y − f_t) / (f_π1 − (f_π3 + f_π4)/2)`` (Croce & Hein 2020, eq. 7), capped like :func:`dlr`. Needs four classes."""
    ordered = logits.sort(dim=1, descending=True).values
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12
    return ((_at(logits, target) - _at(logits, y)) / scale).clamp(max=1)


OBJECTIVES: dict[str, Objective] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def objective(name: str) -> Objective:
    """The objective called ``ce``, ``margin`` or ``dlr``."""
    return OBJECTIVES[name]


def _at(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index[:, None])[:, 0]


def _others(logits: Tensor, y: Tensor) -> Tensor:
    return logits.masked_fill(F.one_hot(y, logits.shape[1]).bool(), -torch.inf)
