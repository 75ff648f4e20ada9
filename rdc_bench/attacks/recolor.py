"""Functional adversarial attacks on colours (ReColorAdv; Laidlaw & Feizi 2019, arXiv 1906.00001)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdc_bench.attacks import attack
from rdc_bench.attacks.ascent import ascend
from rdc_bench.attacks.losses import objective
from rdc_bench.attacks.options import Count, Loss, StepSize
from rdc_bench.threats import ReColorThreat
from rdc_bench.threats.lp import linf
from rdc_bench.threats.recolor import coordinates, from_coordinates

#: Entries of the table along each coordinate of CIELUV, as in the paper, and along the values of a channel without colour.
COLOURS = (16, 32, 32)
VALUES = 256


@attack("recolor", threats=["recolor"])
def recolor(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ReColorThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    step_size: StepSize = 0.0,
    loss: Loss = "margin",
    eot: Count = 1,
    restarts: Count = 1,
) -> Tensor:
    """ReColorAdv: signed gradient ascent on a table from colours to their changes, interpolated, from random starts.

    For three channels one table over CIELUV; otherwise one table for the values of each channel. The paper takes Adam and also
    penalises tables that are not smooth; here the bound alone limits them, which leaves the attack stronger.

    Options:
        steps: per restart. step_size: 0 means 2.5 eps / steps. loss: ce, margin or dlr.
        eot: draws of the model's randomness averaged per step. restarts: independent random starts.
    """
    channels = x.shape[1]
    origin = coordinates(x)
    return ascend(
        model,
        x,
        y,
        linf(threat.eps),
        (channels, *(COLOURS if channels == 3 else (VALUES,))),
        lambda table: from_coordinates(origin + look_up(table, origin)),
        generators=generators,
        # Colours that do not exist were moved to others, which may be further away than eps.
        allowed=lambda recoloured: threat.draw_within(x, recoloured),
        objective=objective(loss),
        steps=steps,
        step_size=step_size or 2.5 * threat.eps / steps,
        eot=eot,
        restarts=restarts,
    )


def look_up(table: Tensor, places: Tensor) -> Tensor:
    """Interpolate ``table`` at each pixel of ``places`` (B, C, H, W), of which the table spans [0, 1]; like ``places``.

    Args: table: (B, 3, *COLOURS) for three channels, otherwise (B, C, VALUES), a table for each channel.
    """
    b, c, h, w = places.shape
    grid = 2 * places - 1
    if c == 3:
        grid = grid.permute(0, 2, 3, 1).flip(-1)[:, None]  # grid_sample counts axes from the last
        return F.grid_sample(table, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]
    grid = grid.reshape(b * c, h, w, 1)
    grid = torch.cat([grid, torch.zeros_like(grid)], dim=-1)
    rows = table.reshape(b * c, 1, 1, VALUES)
    return F.grid_sample(rows, grid, mode="bilinear", padding_mode="border", align_corners=True).reshape(b, c, h, w)
