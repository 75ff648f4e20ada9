"""Square attack for randomised models (Andriushchenko et al. 2020, arXiv 1912.00049): a random search that needs logits only.

A query changes a square of pixels and keeps the change when the mean objective over several draws of the model rises. Three
things differ from the paper, all because the model is random:

* the objective is a mean over draws, and no image stops early: one misclassified draw settles nothing;
* the value of the point that a search stands on is looked up again from time to time. It was kept because it came out high,
  partly by luck, and a lucky value would refuse better points for good;
* each image has squares of its own, drawn from its own generator.

On a deterministic model one draw is enough, and an image that is fooled is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rdc_bench.attacks import attack
from rdc_bench.attacks.gradient import look
from rdc_bench.attacks.losses import Objective, objective
from rdc_bench.attacks.options import Count, Loss
from rdc_bench.threats import LpThreat

#: Share of the pixels that the first squares cover.
FIRST_SHARE = 0.8
#: Queries, of 10,000, after which the share is halved (section 5 of the paper); others are rescaled.
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
#: Queries between two looks at the point itself, on a randomised model.
REFRESH = 10
#: Tiles along an edge in the first change under ℓ2.
TILES = 5

#: A step of the search: original images, current ones, edge of the squares, uniform numbers (B, DRAWS) to proposed images.
Proposal = Callable[[LpThreat, Tensor, Tensor, int, Tensor], Tensor]


@attack("square-eot", threats=["linf", "l2"], gradient="black-box")
def square_eot(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    queries: Count = 1000,
    eot: Count = 20,
    loss: Loss = "margin",
) -> Tensor:
    """Square attack on the loss averaged over the model's draws (Andriushchenko et al. 2020, arXiv 1912.00049).

    Options:
        queries: proposals per image. eot: draws of the model's randomness averaged per query; 1 on deterministic models.
        loss: ce, margin or dlr.
    """
    value_of = objective(loss)
    stochastic = bool(getattr(model, "stochastic", False))
    draws = eot if stochastic else 1
    # All numbers of an image at once: what it draws does not depend on how long others are searched.
    numbers = torch.stack([torch.rand(queries + 1, _numbers(x), generator=g) for g in generators], dim=1).to(x)
    start, propose = (_stripes, _square) if threat.kind == "linf" else (_tiles, _moved_mass)

    out = x.clone()
    searched = torch.arange(len(x), device=x.device)
    if not stochastic:
        searched = searched[~_look(model, x, y, value_of, draws)[1]]
    if not len(searched):
        return out
    original, point = x[searched], start(threat, x[searched], numbers[0, searched])
    value, fooled = _look(model, point, y[searched], value_of, draws)
    out[searched] = point
    for query in range(1, queries + 1):
        if not stochastic and fooled.any():
            searched, original, point, value = (t[~fooled] for t in (searched, original, point, value))
            if not len(searched):
                break
        edge = _edge(query, queries, x.shape[2:])
        proposed = propose(threat, original, point, edge, numbers[query, searched])
        found, fooled = _look(model, proposed, y[searched], value_of, draws)
        better = found > value
        fooled = fooled & better
        point = torch.where(better[:, None, None, None], proposed, point)
        value = torch.where(better, found, value)
        out[searched] = point
        if stochastic and query % REFRESH == 0:
            value, _ = _look(model, point, y, value_of, draws)
    return out


def _look(model: nn.Module, x: Tensor, y: Tensor, value_of: Objective, draws: int) -> tuple[Tensor, Tensor]:
    """Mean objective over draws, (B,), and whether the mean logits are wrong, (B,)."""
    value, logits = look(model, x, y, value_of, draws)
    return value, logits.argmax(dim=1) != y


def _edge(query: int, queries: int, size: Sequence[int]) -> int:
    """Edge of the squares of one query, in pixels."""
    halvings = sum(query > after * queries / 10_000 for after in HALVED_AFTER)
    area = FIRST_SHARE / 2**halvings * math.prod(size)
    return min(max(round(math.sqrt(area)), 1), *size)


def _numbers(x: Tensor) -> int:
    """Uniform numbers that a query uses at most: two corners, an orientation and a sign per channel, or the first change."""
    return max(5 + x.shape[1], x.shape[1] * x.shape[3], x.shape[1] * TILES * TILES + 1)


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0)


def _pixels(numbers: Tensor, edge: int, size: torch.Size) -> Tensor:
    """Indices into flattened images of a square placed at random, row by row; ``numbers`` (B, 2) to (B, edge²)."""
    height, width = size[-2:]
    room = torch.tensor([height - edge + 1, width - edge + 1], device=numbers.device)
    top, left = (numbers * room).long().minimum(room - 1).unbind(dim=1)
    along = torch.arange(edge, device=numbers.device)
    rows, columns = top[:, None] + along, left[:, None] + along
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def _stripes(threat: LpThreat, x: Tensor, numbers: Tensor) -> Tensor:
    """Vertical stripes of ±ε, each of one sign and as wide as a pixel."""
    signs = _signs(numbers[:, : x.shape[1] * x.shape[3]]).view(len(x), x.shape[1], 1, x.shape[3])
    return threat.project(x, x + threat.eps * signs)


def _square(threat: LpThreat, x: Tensor, point: Tensor, edge: int, numbers: Tensor) -> Tensor:
    """ℓ∞: a square set to +ε or −ε in each channel (algorithm 2)."""
    channels = x.shape[1]
    where = _pixels(numbers[:, :2], edge, x.shape)[:, None].expand(-1, channels, -1)
    change = threat.eps * _signs(numbers[:, 2 : 2 + channels])[:, :, None].expand_as(where)
    delta = (point - x).flatten(2).scatter(2, where, change)
    return threat.project(x, x + delta.view_as(x))


def _tiles(threat: LpThreat, x: Tensor, numbers: Tensor) -> Tensor:
    """ℓ2: a grid of tiles, each with the paper's pattern in an orientation and with signs of its own."""
    channels, height, width = x.shape[1:]
    edge = max(min(height, width) // TILES, 1)
    rows, columns = (min(TILES, side // edge) for side in (height, width))
    signs = _signs(numbers[:, : channels * rows * columns]).view(-1, channels, rows, 1, columns, 1)
    upright = numbers[:, -1, None, None] < 0.5
    pattern = torch.where(upright, _pattern(edge).to(x), _pattern(edge).to(x).T)
    delta = torch.zeros_like(x)
    delta[:, :, : rows * edge, : columns * edge] = (signs * pattern[:, None, None, :, None, :]).reshape(
        -1, channels, rows * edge, columns * edge
    )
    norm = delta.flatten(1).norm(dim=1)[:, None, None, None]
    return threat.project(x, x + threat.eps * delta / norm)


def _moved_mass(threat: LpThreat, x: Tensor, point: Tensor, edge: int, numbers: Tensor) -> Tensor:
    """ℓ2: the change within one square is moved to another, with what the ball leaves unused (algorithm 3)."""
    channels = x.shape[1]
    delta = (point - x).flatten(2)
    to = _pixels(numbers[:, :2], edge, x.shape)[:, None].expand(-1, channels, -1)
    source = _pixels(numbers[:, 2:4], edge, x.shape)[:, None].expand(-1, channels, -1)
    pattern = _pattern(edge).to(x)
    upright = numbers[:, 4, None, None] < 0.5
    pattern = torch.where(upright, pattern, pattern.T).flatten(1)[:, None]
    signs = _signs(numbers[:, 5 : 5 + channels])[:, :, None]

    here = delta.gather(2, to)
    direction = _unit(signs * pattern / pattern.norm(dim=2, keepdim=True) + _unit(here))
    emptied = delta.scatter(2, to, 0.0).scatter(2, source, 0.0)
    unused = (threat.eps**2 - delta.square().sum(dim=(1, 2), keepdim=True)).clamp_min(0)
    freed = (delta.square() - emptied.square()).sum(dim=2, keepdim=True).clamp_min(0)
    moved = emptied.scatter(2, to, direction * (freed + unused / channels).sqrt())
    return threat.project(x, x + moved.view_as(x))


def _pattern(edge: int) -> Tensor:
    """The paper's η: half of a square rises to a peak and the other half falls to one, (edge, edge)."""
    half = _hill(edge, edge // 2)
    return torch.cat([half, -_hill(edge, edge - edge // 2)], dim=1)


def _hill(height: int, width: int) -> Tensor:
    """``Σ_{k=0}^{M} (n + 1 − k)^{−2}`` with M the number of rings between a pixel and the rim, n = height // 2 (eq. 2)."""
    middle = height // 2
    rows = (torch.arange(height) - middle).abs()
    columns = (torch.arange(width) - width // 2).abs()
    inner = middle - torch.maximum(rows[:, None], columns[None, :])
    terms = torch.tensor([1 / (middle + 1 - k) ** 2 for k in range(middle + 1)]).cumsum(dim=0)
    return terms[inner.clamp_min(0)]


def _unit(t: Tensor) -> Tensor:
    """Channels (B, C, pixels) scaled to unit norm; zero stays zero."""
    return t / t.norm(dim=2, keepdim=True).clamp_min(1e-12)
