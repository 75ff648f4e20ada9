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
from rdc_bench.threats import Threat

#: What makes the images under each threat kind.
MAKERS = {
    "linf": "apgd",
    "l2": "apgd",
    "l1": "apgd-l1",
    "stadv": "stadv",
    "jpeg-linf": "jpeg",
    "jpeg-l2": "jpeg",
    "recolor": "recolor",
    "elastic": "elastic",
    "fog": "fog",
    "patch": "patch",
    "snow": "snow",
    "gabor": "gabor",
    "low-frequency": "low-frequency",
    "perceptual": "ppgd",
    "rotation-translation": "rotation-translation",
}


@attack("transfer", threats=list(MAKERS), gradient="black-box", sources="sources", neutral={"together": False})
def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generators: Sequence[torch.Generator],
    sources: str = "auto",
    steps: Count = 50,
    loss: Loss = "margin",
    eot: Count = 1,
    together: bool = False,
) -> Tensor:
    """Images made on every baseline of the dataset; of those found, the one with the largest margin on the model itself.

    They are made by Auto-PGD under ℓ∞ and ℓ2, elsewhere by the threat's own attack. The model is asked for logits only, and
    never is its own source. Network evaluations are counted on the model alone.

    Options:
        sources: names of models separated by commas, or auto for every baseline of the dataset that is here.
        steps: of the attack on the sources. loss: that it maximises, where it leaves the choice.
        eot: draws of the model's randomness averaged when it judges an image.
        together: one image for all sources at once, on the mean of their log-probabilities (Liu et al. 2017, arXiv 1611.02770),
            which the model need not be asked to choose from.
    """
    makers = [source.to(x.device) for source in _sources(model, sources, x.shape[1:])]
    if together:
        return _made(_Mean(makers), x, y, threat, generators, steps, loss)
    best = Best(model, x)
    best.offer(x, *look(model, x, y, margin, eot), y)
    for source in makers:
        points = _made(_Beyond(source), x, y, threat, generators, steps, loss)
        best.offer(points, *look(model, points, y, margin, eot), y)
    return best.points


def _made(
    source: nn.Module, x: Tensor, y: Tensor, threat: Threat, generators: Sequence[torch.Generator], steps: int, loss: str
) -> Tensor:
    """The most adversarial images for a source, (B, C, H, W)."""
    maker = ATTACKS.get(f"apgd-{loss}" if MAKERS[threat.kind] == "apgd" else MAKERS[threat.kind])
    options = {name: value for name, value in {"steps": steps, "loss": loss}.items() if name in maker.defaults}
    made: Tensor = maker.function(source, x, y, threat, generators=generators, **options)
    return made


class _Beyond(nn.Module):
    """A source, attacked for the highest loss rather than for the first success: what is barely wrong seldom transfers."""

    stochastic = True

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.source(x)
        return logits


class _Mean(nn.Module):
    """Several sources as one: the mean of their log-probabilities, attacked for the highest loss as well."""

    stochastic = True

    def __init__(self, sources: Sequence[nn.Module]) -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([source(x).log_softmax(dim=1) for source in self.sources]).mean(dim=0)


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
