"""Transfer from other models: what fools them may fool a defence whose own gradient leads nowhere.

A defence that transferred images break more often than its own gradients do is masking them (Athalye et al. 2018,
arXiv 1802.00420).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, attack
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import look
from rdc_bench.attacks.losses import margin
from rdc_bench.errors import UserError
from rdc_bench.threats import LpThreat


@attack("transfer", threats=["linf", "l2"], gradient="black-box")
def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    sources: str = "auto",
    steps: int = 50,
    loss: Literal["margin", "ce", "dlr"] = "margin",
    eot: int = 1,
) -> Tensor:
    """Auto-PGD on every baseline of the dataset; of the images found, the one with the largest margin on the model itself.

    The model is asked for logits only, and never is its own source. Network evaluations are counted on the model alone.

    Options:
        sources: names of models separated by commas, or auto for every baseline that is here. steps: of Auto-PGD, per source.
        loss: that Auto-PGD maximises. eot: draws of the model's randomness averaged when it judges an image.
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
    from rdc_bench.loading import load_model  # models are loaded in this attack alone

    card = getattr(model, "card", None)
    chosen = [name.strip() for name in names.split(",")] if names != "auto" else _baselines(model)
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


def _baselines(model: nn.Module) -> list[str]:
    """The baselines for the model's dataset, as far as they can be run without a download."""
    from rdc_bench.availability import availability
    from rdc_bench.cards import card_names
    from rdc_bench.parts import find_card

    card = getattr(model, "card", None)
    if card is None:
        raise UserError("attack transfer: this model has no card that names its dataset; name sources with sources=NAME,NAME")
    of_dataset = []
    for name in card_names("models"):
        try:
            found = find_card(name, download=False)
            fits = (found.card.role, found.card.dataset, found.card.image_shape) == ("baseline", card.dataset, card.image_shape)
            if fits and found.card.num_classes == card.num_classes and availability(found).runnable:
                of_dataset.append(name)
        except UserError:  # a faulty card of the user's, or one whose library is absent, is no baseline that is here
            continue
    return of_dataset
