"""The Robust Diffusion Classifier: likelihood maximisation, then a classifier."""

from __future__ import annotations

from torch import Tensor, nn

from rdc_bench.defenses.likelihood_maximization import LikelihoodMaximization


class RDC(nn.Module):
    """``classifier(likelihood_maximization(x))`` (Chen et al., arXiv 2305.15241, algorithm 1).

    With a :class:`~rdc_bench.defenses.DiffusionClassifier` this is the paper's RDC; with an ordinary classifier it is the
    paper's "LM" row.
    """

    def __init__(self, likelihood_maximization: LikelihoodMaximization, classifier: nn.Module) -> None:
        super().__init__()
        self.likelihood_maximization = likelihood_maximization
        self.classifier = classifier

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same image may differ."""
        return self.likelihood_maximization.stochastic or getattr(self.classifier, "stochastic", False)

    @property
    def gradient(self) -> str:
        """How gradients pass through the maximisation: ``exact``, ``bpda`` or ``surrogate``."""
        return self.likelihood_maximization.gradient

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits (B, K)."""
        return self.classifier(self.likelihood_maximization(x))
