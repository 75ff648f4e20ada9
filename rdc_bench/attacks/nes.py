"""Gradients estimated from logits alone: natural evolution strategies (Ilyas et al. 2018, arXiv 1804.08598).

The gradient of the smoothed function ``E f(x + σu)``, ``u ~ N(0, I)``, is ``E u f(x + σu) / σ``, estimated from antithetic
pairs. It sees through a backward pass that lies, is zero or is absent, and through steps of the function that are smaller than
``σ``. Whatever attack the threat has then runs on the estimate, in the threat's own parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, attack
from rdc_bench.attacks.options import Count, Positive
from rdc_bench.attacks.transfer import MAKERS
from rdc_bench.threats import Threat

#: Antithetic pairs per image that go through the model at once: a fixed number, so that an image's draws do not depend on how
#: many others are with it.
AT_ONCE = 4


@attack("nes", threats=list(MAKERS), gradient="black-box")
def nes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 20,
    pairs: Count = 32,
    sigma: Positive = 0.02,
) -> Tensor:
    """The threat's own attack along gradients estimated from logits (Ilyas et al. 2018, arXiv 1804.08598).

    Options:
        steps: of that attack. pairs: antithetic pairs of noisy images per estimate. sigma: of their noise, in pixel values.
    """
    maker = ATTACKS.get("apgd-margin" if MAKERS[threat.kind] == "apgd" else MAKERS[threat.kind])
    options = {name: value for name, value in {"steps": steps}.items() if name in maker.defaults}
    made: Tensor = maker.function(_Estimated(model, generators, pairs, sigma), x, y, threat, generators=generators, **options)
    return made


class _Estimated(nn.Module):
    """A model whose gradient is estimated from its logits on noisy copies of the batch; one generator per image."""

    def __init__(self, model: nn.Module, generators: Sequence[torch.Generator], pairs: int, sigma: float) -> None:
        super().__init__()
        self.model = model
        self.stochastic = bool(getattr(model, "stochastic", False))
        self.generators = generators
        self.pairs = pairs
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        logits: Tensor = _Estimate.apply(x, self)
        return logits

    def estimate(self, x: Tensor, weights: Tensor) -> Tensor:
        """The gradient of ``Σ weights · logits``, (B, C, H, W); ``weights`` (B, K)."""
        total = torch.zeros_like(x, dtype=torch.float64)  # in which the order of sums does not show
        for start in range(0, self.pairs, AT_ONCE):
            pairs = min(AT_ONCE, self.pairs - start)
            noise = torch.stack([torch.randn(pairs, *x.shape[1:], generator=g) for g in self.generators], dim=1).to(x)
            both = torch.cat([noise, -noise])
            logits = self.model((x + self.sigma * both).clamp(0, 1).flatten(0, 1)).unflatten(0, (2 * pairs, len(x)))
            values = (weights * logits.nan_to_num()).double().sum(dim=2)
            total += ((values[:pairs] - values[pairs:])[:, :, None, None, None] * noise).sum(dim=0)
        return (total / (2 * self.pairs * self.sigma)).to(x)


class _Estimate(torch.autograd.Function):
    """Logits as they are, and a gradient that the model's own backward pass has no part in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, estimated: _Estimated) -> Tensor:
        ctx.save_for_backward(x)
        ctx.estimated = estimated
        with torch.no_grad():
            logits: Tensor = estimated.model(x)
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return ctx.estimated.estimate(x, weights), None
