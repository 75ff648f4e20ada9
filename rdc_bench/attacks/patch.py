"""An adversarial patch for each image (Brown et al. 2017, arXiv 1712.09665)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend
from rdc_bench.attacks.best import Best
from rdc_bench.attacks.gradient import evaluate
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import PatchThreat
from rdc_bench.threats.lp import linf


@attack("patch", threats=["patch"])
def patch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: PatchThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 50,
    step_size: StepSize = 0.0,
    places: Count = 4,
    loss: Loss = "margin",
    eot: Count = 1,
) -> Tensor:
    """Signed gradient ascent on the pixels of a patch at its most promising place and at random ones; keeps the best iterate.

    The first place is where the gradient at the image promises most. Brown et al. train one patch that works on every image at
    any place; here each image has a patch and a place of its own, which is stronger.

    Options:
        steps: per place. step_size: of pixel values; 0 means 1.25 / steps. places: how many are tried.
        loss: ce, margin or dlr. eot: draws of the model's randomness averaged per step.
    """
    loss_function = objective(loss)
    best = Best(model, x)
    value, gradient, logits = evaluate(model, x, y, loss_function, eot)
    best.offer(x, value, logits, y)
    # What a linear model gains from each pixel at most.
    corners = threat.best_corners(torch.maximum(gradient * (1 - x), -gradient * x).double().sum(dim=1))
    for _ in range(places):
        mask = threat.mask(corners, x.shape)

        def paste(content: Tensor, mask: Tensor = mask) -> Tensor:
            return torch.where(mask, 0.5 + content, x)

        ascend(
            model,
            x,
            y,
            linf(0.5),  # of pixel values about the middle of their range
            x.shape[1:],
            paste,
            generators=generators,
            allowed=lambda pasted: pasted.clamp(0, 1),
            objective=loss_function,
            steps=steps,
            step_size=step_size or 1.25 / steps,
            eot=eot,
            restarts=1,
            best=best,
        )
        corners = _random_corners(threat, x, generators)
    return best.points


def _random_corners(threat: PatchThreat, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Uniform among the places of the square within the image, (B, 2)."""
    room = torch.tensor(x.shape[2:]) - threat.side(x.shape) + 1
    shares = (linf(1.0).uniform((len(x), 2), generators) + 1) / 2
    return torch.minimum((shares * room).long(), room - 1).to(x.device)
