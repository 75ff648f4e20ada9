"""Transfer from other models: what fools them may fool a defence whose own gradient leads nowhere.

A defence that transferred images break more often than its own gradients do is masking them (Athalye et al. 2018,
arXiv 1802.00420).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, attack, source_names
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import look
from rdc_bench.attacks.losses import margin
from rdc_bench.attacks.options import Count, Loss
from rdc_bench.errors import UserError
from rdc_bench.threats import LpThreat


@attack("transfer", threats=["linf", "l2"], gradient="black-box", sources="sources")
def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    sources: str = "auto",
    steps: Count = 50,
    loss: Loss = "margin",
    eot: Count = 1,
) -> Tensor:
    """Auto-PGD on every baseline of the dataset; of the images found, the one with the largest margin on the model itself.

    The model is asked for logits only, and never is its own source. Network evaluations are counted on the model alone.

    Options:
        sources: names of models separated by commas, or auto for every baseline of the dataset that is here.
        steps: of Auto-PGD, per source. loss: that Auto-PGD maximises.
        eot: draws of the model's randomness averaged when it judges an image.
    """
    apgd = ATTACKS.get(f"apgd-{loss}").function
    best = Best(model, x)
    best.offer(x, *look(model, x, y, margin, eot), y)
    for source in _sources(model, sources, x.shape[1:]):
        points = apgd(_Beyond(source.to(x.device)), x, y, threat, generators=generators, steps=steps)
        best.offer(points, *look(model, points, y, margin, eot), y)
    return best.points


class _Beyond(nn.Module):
    """A source, attacked for the highest loss rather than for the first success: what is barely wrong seldom transfers."""

    stochastic = True

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.source(x)
        return logits


def _sources(model: nn.Module, names: str, shape: Sequence[int]) -> list[nn.Module]:
    """The models to transfer from, loaded."""
    from rdc_bench.catalog import baselines  # models are looked for and loaded in this attack alone
    from rdc_bench.loading import load_model

    card = getattr(model, "card", None)
    if names != "auto":
        chosen = source_names(names)
    elif card is not None:
        chosen = baselines(card.dataset)
    else:
        raise UserError("attack transfer: this model has no card that names its dataset; name sources with sources=NAME,NAME")
    chosen = [name for name in chosen if card is None or name != card.name]
    if not chosen:
        raise UserError("attack transfer: there is no model to transfer from; name some with sources=NAME,NAME")
    loaded = [load_model(name) for name in chosen]
    for source in loaded:
        theirs: Any = source.card
        if theirs.image_shape != tuple(shape):
            raise UserError(
                f"attack transfer: source {theirs.name!r} takes images of shape {theirs.image_shape}, not {tuple(shape)}"
            )
    return loaded
