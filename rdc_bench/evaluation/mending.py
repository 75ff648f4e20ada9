"""Models that are nearly what an evaluation needs, made so: from images to float32 logits, with draws that belong to images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.global_generators import preserved
from rdc_bench.randomness import draws_for, row_keys, seed_of
from rdc_bench.results.admission import Admission, Output


def mended(model: nn.Module, admission: Admission) -> nn.Module:
    """The model as it was admitted: itself where nothing had to be mended, else a :class:`Mended` around it."""
    needs = (
        admission.output != "tensor"
        or {admission.dtype, admission.images_as} != {"float32"}
        or admission.writes_input
        or admission.by_rows
        or admission.stochastic != admission.declared
        or admission.approximate
    )
    if not needs:
        return model
    return Mended(
        model,
        output=admission.output,
        images_as=getattr(torch, admission.images_as),
        copies=admission.writes_input,
        by_rows=admission.by_rows,
        stochastic=admission.stochastic,
        approximate=admission.approximate,
    ).eval()


class Mended(nn.Module):
    """A model whose answers become float32 logits (B, K).

    Args:
        output: where the logits are in what ``model`` returns. images_as: the type that it takes images in.
        copies: it gets a copy of the images, because it writes into them.
        by_rows: images are shown to it one at a time. If it is ``stochastic``, the generators of Python, NumPy and torch are
            seeded for each by the key of its draw (:func:`rdc_bench.randomness.row_keys`), and that key alone is announced.
            Whatever the model draws from, and if it draws once a batch: its draws then belong to the image, and repeat.
        stochastic: it is randomised. approximate: its gradient is another function's, and counts as ``bpda``.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: Output = "tensor",
        images_as: torch.dtype = torch.float32,
        copies: bool = False,
        by_rows: bool = False,
        stochastic: bool = False,
        approximate: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.card = getattr(model, "card", None)
        self.output = output
        self.images_as = images_as
        self.copies = copies
        self.by_rows = by_rows
        self.stochastic = stochastic
        if approximate:
            self.gradient = "bpda"

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K), float32."""
        if not self.by_rows:
            return self._logits(x)
        if not self.stochastic:
            return torch.cat([self._logits(row) for row in x.split(1)])
        rows = []
        for row, key in zip(x.split(1), row_keys(len(x)), strict=True):
            with preserved(x.device, seed_of(*key, "model")), draws_for([key]):
                rows.append(self._logits(row))
        return torch.cat(rows)

    def _logits(self, x: Tensor) -> Tensor:
        images = x.to(self.images_as)
        return read(self.model(images.clone() if self.copies else images), self.output).to(torch.float32)


def where(answer: Any) -> Output | None:
    """Where the logits are in what a model returned, None where there are none to be found."""
    if isinstance(answer, Tensor):
        return "tensor"
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), Tensor):
        return "key"
    if isinstance(getattr(answer, "logits", None), Tensor):
        return "attribute"
    if isinstance(answer, tuple | list) and answer and isinstance(answer[0], Tensor):
        return "first"
    return None


def read(answer: Any, output: Output) -> Tensor:
    """The logits in what a model returned."""
    logits: Tensor
    if output == "key":
        logits = answer["logits"]
    elif output == "attribute":
        logits = answer.logits
    elif output == "first":
        logits = answer[0]
    else:
        logits = answer
    return logits
