"""Defences whose noise is fixed: a defender may draw it once and for all.

Such a model is deterministic, and another defence than the one with fresh noise: whoever attacks it knows the noise (or learns
it), so images that were made against fresh noise say little about it. It must be attacked as it is.
"""

from __future__ import annotations

from torch import Tensor, nn

from rdc_bench.core.randomness import draws_for
from rdc_bench.defenses.diffusion_classifier import DiffusionClassifier
from rdc_bench.defenses.likelihood_maximization import LikelihoodMaximization


def fixed_noise(model: nn.Module) -> nn.Module:
    """The same model with the same noise for every image and call.

    The noise of each diffusion classifier and likelihood maximisation inside is fixed in place, by the seed of its card. A
    model that has other draws besides comes back as a :class:`FixedNoise` around it.
    """
    for module in model.modules():
        if isinstance(module, DiffusionClassifier | LikelihoodMaximization):
            module.noise = "fixed"
    return FixedNoise(model).eval() if getattr(model, "stochastic", False) else model


class FixedNoise(nn.Module):
    """A model whose draws (:func:`rdc_bench.randomness.row_keys`) are the same for every image and call."""

    stochastic = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.card = getattr(model, "card", None)

    @property
    def gradient(self) -> str:
        """How gradients pass through the model: ``exact`` or ``bpda``."""
        return str(getattr(self.model, "gradient", "exact"))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
        with draws_for([("fixed",)] * len(x)):
            logits: Tensor = self.model(x)
        return logits
