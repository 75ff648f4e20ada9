"""Recolouring (ReColorAdv; Laidlaw & Feizi 2019, arXiv 1906.00001): every colour may become another, wherever it occurs.

Colours of three channels are compared in CIELUV, where equal distances look about equally large, with all three coordinates
scaled to about [0, 1] as in the authors' code: L*/100, (u* + 100)/200, (v* + 100)/200. Images of any other number of channels
have no colours in that sense: each channel is compared by its values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: From linear sRGB to CIE XYZ under D65 (IEC 61966-2-1).
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))

#: Slack of the membership test, in the unit of ε, and for pixels of one colour that must stay of one colour.
ROUNDING = 1e-4
#: Halvings in the search for the furthest allowed point towards a colour.
HALVINGS = 16


def coordinates(x: Tensor) -> Tensor:
    """What colours of images (B, C, H, W) are compared by: scaled CIELUV for three channels, otherwise ``x`` itself."""
    if x.shape[1] != 3:
        return x
    linear = torch.where(x <= 0.04045, x / 12.92, ((x.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,bjhw->bihw", _xyz(x), linear)
    y = xyz[:, 1]
    u, v = _chromaticity(*xyz.unbind(dim=1))
    white_u, white_v = _white(x)
    lightness = torch.where(y <= (6 / 29) ** 3, (29 / 3) ** 3 * y, 116 * y.clamp_min((6 / 29) ** 3) ** (1 / 3) - 16)
    return torch.stack(
        [
            lightness / 100,
            (13 * lightness * (u - white_u) + 100) / 200,
            (13 * lightness * (v - white_v) + 100) / 200,
        ],
        dim=1,
    )


def from_coordinates(c: Tensor) -> Tensor:
    """The inverse of :func:`coordinates`, where there is a colour; otherwise one near it. In [0, 1]."""
    if c.shape[1] != 3:
        return c.clamp(0, 1)
    lightness, white = 100 * c[:, 0], _white(c)
    u, v = ((200 * c[:, i + 1] - 100) / (13 * lightness).clamp_min(1e-3) + white[i] for i in range(2))
    # No colour of a screen is outside these bounds, and near v' = 0 the next lines would overflow.
    u, v = u.clamp(0, 0.65), v.clamp(0.1, 0.6)
    y = torch.where(lightness <= 8, lightness * (3 / 29) ** 3, ((lightness.clamp_min(8) + 16) / 116) ** 3)
    xyz = torch.stack([y * 9 * u / (4 * v), y, y * (12 - 3 * u - 20 * v) / (4 * v)], dim=1)
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_xyz(c)), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055).clamp(
        0, 1
    )


class ReColorThreat:
    """``{f(x) : f takes colours in [0, 1]^C to such, and each coordinate of a colour moves by at most ε}``.

    Membership is decided from the images alone, exactly for this set: every pixel within ε, and pixels of one colour still of
    one colour. The function need not be smooth. The paper's is an interpolated table, so that this set is a superset of its,
    the more so the fewer pixels share a colour.
    """

    kind = "recolor"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def max_eps(self, shape: Sequence[int]) -> float:
        """Any grey value to any other; a little less than any colour to any other."""
        return 1.0

    def contains(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """Whether each image is a recolouring within ε; bool (B,)."""
        return self.distance(x, adversarial) <= self.eps + ROUNDING

    def distance(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """The largest move of a coordinate, (B,); infinite for images out of range or of which one colour became several."""
        moves = (coordinates(adversarial.double()) - coordinates(x.double())).abs().flatten(1).amax(dim=1)
        valid = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(dim=1)  # false for NaN as well
        consistent = (adversarial - _uniform(x, adversarial)).abs().flatten(1).amax(dim=1) <= ROUNDING
        return moves.masked_fill(~(valid & consistent), torch.inf)

    def project(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """An allowed image: the mean wherever ``x`` has one colour, drawn towards ``x`` until it is within ε."""
        return self.draw_within(x, _uniform(x, adversarial).clamp(0, 1))

    def draw_within(self, x: Tensor, adversarial: Tensor) -> Tensor:
        """``adversarial``, in [0, 1], with each pixel drawn towards its original until it is within ε."""
        origin, change = coordinates(x), adversarial - x
        share = torch.zeros_like(x[:, :1])
        for power in range(HALVINGS + 1):
            further = (share + 0.5**power).clamp(max=1)
            moved = (coordinates(x + further * change) - origin).abs().amax(dim=1, keepdim=True)
            share = torch.where(moved <= self.eps + ROUNDING / 100, further, share)
        return (x + share * change).clamp(0, 1)


def _uniform(x: Tensor, adversarial: Tensor) -> Tensor:
    """``adversarial`` with the mean over all pixels that have one colour in ``x``, per image."""
    means = []
    for image, goal in zip(x.flatten(2), adversarial.flatten(2), strict=True):
        _, group = image.unique(dim=1, return_inverse=True)
        sums = goal.new_zeros(len(goal), int(group.max()) + 1).index_add(1, group, goal)
        means.append((sums / group.bincount())[:, group])
    return torch.stack(means).view_as(adversarial)


def _xyz(like: Tensor) -> Tensor:
    return torch.tensor(XYZ, dtype=like.dtype, device=like.device)


def _white(like: Tensor) -> tuple[Tensor, Tensor]:
    """Chromaticity of white: that of equal parts of all three."""
    return _chromaticity(*_xyz(like).sum(dim=1))


def _chromaticity(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """CIE 1976 u′ and v′; of black, which has none, 0."""
    total = (x + 15 * y + 3 * z).clamp_min(1e-10)
    return 4 * x / total, 9 * y / total
