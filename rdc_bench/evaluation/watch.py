"""What a model showed of itself while it was attacked.

An attack may fail without a word: on a gradient that is zero or not a number, on logits that are not finite, on a wrong answer
that it passed by. The evaluation therefore watches the model, whoever attacks it (this package, another library, a plugin): for
each image the logits that came out and the gradients that went back. Pintor et al. 2022 (arXiv 2106.09947) list the signs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.losses import margin
from rdc_bench.threats import LpThreat, Threat

#: Passes with a gradient, counted from 1, at whose points the gradient may be checked.
KEPT_PASSES = (1, 2, 4, 8)

#: Later looks at a random model before the highest says anything: of fewer draws, the first is often the highest by chance.
FEW = 4

#: Whether an image's gradients could be followed: all of them, some, or none.
Gradients = Literal["ok", "partly", "never"]


class Seen(NamedTuple):
    """What was seen of one image.

    Attributes:
        gradients: whether they could be followed; None where none was asked for.
        rose: whether the margin was ever higher than at first; None where the model was asked once (a random one: a few times).
        path: points (C, H, W) where a gradient was taken, in order. wrong: one on which the model errs, or None.
    """

    gradients: Gradients | None = None
    rose: bool | None = None
    path: tuple[Tensor, ...] = ()
    wrong: Tensor | None = None


@dataclass
class Watch:
    """What was seen of each image of a batch.

    Attributes:
        x, y: the images (B, C, H, W) and their labels (B,).
        usable, unusable: whether a gradient came back that was finite and not zero, and one that was not; bool (B,).
        first, highest: margin at the first look at the image and the highest at a later one, (B,); −inf before.
        later: looks after the first, (B,).
        wrong: a point of the threat set on which the model errs, (B, C, H, W), where ``found``, bool (B,). Of a random model
            only logits that are not finite are an error: a wrong class may be one unlucky draw.
        path: for each image of ``kept``, points where a gradient was taken before the image was misclassified.
    """

    x: Tensor
    y: Tensor
    threat: Threat
    stochastic: bool
    kept: frozenset[int] = frozenset()
    usable: Tensor = field(init=False)
    unusable: Tensor = field(init=False)
    first: Tensor = field(init=False)
    highest: Tensor = field(init=False)
    later: Tensor = field(init=False)
    wrong: Tensor = field(init=False)
    found: Tensor = field(init=False)
    path: dict[int, list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        never = torch.zeros_like(self.y, dtype=torch.bool)
        self.usable, self.unusable, self.found = never, never.clone(), never.clone()
        self.first = torch.full(self.y.shape, -torch.inf, device=self.y.device)
        self.highest = self.first.clone()
        self.later = torch.zeros_like(self.y)
        self.wrong = self.x.clone()
        self.path = {image: [] for image in self.kept}
        self._passes = dict.fromkeys(self.kept, 0)

    def seen(self, image: int) -> Seen:
        """Of one image of the batch."""
        gradients: Gradients | None = None
        if self.usable[image]:
            gradients = "partly" if self.unusable[image] else "ok"
        elif self.unusable[image]:
            gradients = "never"
        again = bool(self.later[image] >= (FEW if self.stochastic else 1))
        return Seen(
            gradients,
            bool(self.highest[image] > self.first[image]) if again else None,
            tuple(self.path.get(image, ())),
            self.wrong[image] if self.found[image] else None,
        )

    @torch.no_grad()
    def look(self, points: Tensor, logits: Tensor) -> None:
        """Take note of one call of the model: ``points`` (R, C, H, W), rows of any of the images, and ``logits`` (R, K)."""
        owners = self.owners(points)
        points, logits = points.detach(), logits.detach().float()
        finite = torch.isfinite(logits).all(dim=1)
        values = margin(logits, self.y[owners]).masked_fill(~finite, torch.inf)
        seen = self.first > -torch.inf
        later = seen[owners]
        self.highest.scatter_reduce_(0, owners[later], values[later].to(self.highest), "amax")
        self.later[owners[later].unique()] += 1
        self.first.scatter_reduce_(0, owners[~later], values[~later].to(self.first), "amax")
        errs = ~finite
        if not self.stochastic and isinstance(self.threat, LpThreat):
            # A point that an attack passed by breaks the image all the same. Other threats' sets are dear to ask each time.
            errs = errs | (values >= 0)
        self._keep_wrong(points, owners, errs)

    def _keep_wrong(self, points: Tensor, owners: Tensor, errs: Tensor) -> None:
        rows = (errs & ~self.found[owners]).nonzero()[:, 0]
        if not len(rows):
            return
        inside = torch.isfinite(points[rows]).flatten(1).all(dim=1) & self.threat.contains(self.x[owners[rows]], points[rows])
        for row in rows[inside].tolist():
            image = int(owners[row])
            if not self.found[image]:
                self.found[image] = True
                self.wrong[image] = points[row]

    @torch.no_grad()
    def differentiated(self, points: Tensor, gradient: Tensor) -> None:
        """Take note of a gradient (R, C, H, W) that came back to ``points``."""
        owners = self.owners(points)
        flat = gradient.flatten(1)
        usable = torch.isfinite(flat).all(dim=1) & (flat != 0).any(dim=1)
        self.usable[owners[usable]] = True
        self.unusable[owners[~usable]] = True
        for image in self.kept:
            row = next(iter((owners == image).nonzero()[:, 0].tolist()), None)
            if row is None or (self.found[image] and not self.stochastic):
                continue
            self._passes[image] += 1
            if self._passes[image] in KEPT_PASSES:
                self.path[image].append(points[row].detach().clone())

    def owners(self, points: Tensor) -> Tensor:
        """Which image each of ``points`` belongs to, (R,).

        The rows of whole copies of the batch belong to the images in order. Libraries thin batches out, so that a row which is
        clearly nearer to another image is taken to be of that one.
        """
        rows, images = points.detach().flatten(1).float(), self.x.flatten(1)
        distance = torch.cdist(rows, images, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.nan_to_num(nan=torch.inf)
        nearest = distance.argmin(dim=1)
        if len(points) % len(self.x):
            return nearest
        row = torch.arange(len(points), device=points.device)
        in_order = row % len(self.x)
        return torch.where(distance[row, in_order] <= 2 * distance[row, nearest], in_order, nearest)


@contextlib.contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Tell ``watch`` of every call of ``model`` within the block, and of every gradient that comes back to its input."""
    inputs: list[Tensor | None] = []  # one for each call that has begun: a model may call itself

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x = (
            args[0]
            if args and isinstance(args[0], Tensor) and args[0].shape[1:] == watch.x.shape[1:] and len(args[0])
            else None
        )
        # Differentiating the caller's tensor itself would show gradients of other things that it is used for.
        mine = x.view_as(x) if x is not None and x.requires_grad else x
        inputs.append(mine)
        return None if mine is None else (mine, *args[1:])

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        x = inputs.pop()
        if inputs or x is None or not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(x):
            return
        watch.look(x, output)
        if x.requires_grad and output.requires_grad:  # only now: a model may differentiate its own input on the way
            x.register_hook(lambda gradient: watch.differentiated(x, gradient))

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
