"""The model under examination, the images it is examined on, and the attacks that several checks share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS
from rdc_bench.attacks.gradient import Evaluation, evaluate
from rdc_bench.attacks.losses import Objective
from rdc_bench.core.predictions import predictions
from rdc_bench.core.randomness import Key, draws_for, generator, seed_of
from rdc_bench.diagnostics.ascent import Ascent, ascend, joined
from rdc_bench.threats import LpThreat

T = TypeVar("T")

#: Fresh draws that judge an adversarial image of a randomised model, by their majority.
JUDGES = 5
#: Independent random starts of the white-box attack, and its steps from each.
RESTARTS, STEPS = 3, 20
#: Images that go through the model at once.
BATCH = 64


class Attached(nn.Module):
    """A model whose logits hang on its input, by nothing if need be: without a gradient it has the gradient zero.

    Attacks then run through on a model that is detached from its input, and find what can be found without a gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.stochastic = bool(getattr(model, "stochastic", False))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        logits: Tensor = self.model(x)
        return logits if logits.requires_grad or not x.requires_grad else logits + 0 * x.sum()


@dataclass(frozen=True)
class Subject:
    """A model and the images (B, C, H, W) that it classifies as their labels (B,) say.

    Every draw is keyed by seed, image and purpose. Models that draw from torch's global generator instead are given a seed for
    each purpose, so that they too can be shown the same draws twice.

    Args: indices: of the images, in their dataset. surrogates: other models of the same dataset, by name.
    """

    model: Attached
    x: Tensor
    y: Tensor
    indices: list[int]
    threat: LpThreat
    seed: int
    surrogates: dict[str, nn.Module]

    def __len__(self) -> int:
        return len(self.y)

    @property
    def stochastic(self) -> bool:
        """Whether the model says that it is randomised, or was seen to be."""
        return self.model.stochastic

    def keys(self, *purpose: str | int) -> list[Key]:
        """Keys of draws for a purpose, one per image."""
        return [(self.seed, index, "diagnosis", *purpose) for index in self.indices]

    def generators(self, *purpose: str | int) -> list[torch.Generator]:
        """Generators for a purpose, one per image."""
        return [generator(*key, "generator") for key in self.keys(*purpose)]

    def logits(self, x: Tensor, *purpose: str | int) -> Tensor:
        """Logits (B, K) under the draws of a purpose."""
        with torch.no_grad():
            return torch.cat(self._batched(purpose, lambda rows: self.model(x[rows])))

    def evaluate(self, x: Tensor, objective: Objective, *purpose: str | int) -> Evaluation:
        """Objective and gradient under the draws of a purpose."""
        parts = self._batched(purpose, lambda rows: evaluate(self.model, x[rows], self.y[rows], objective, 1))
        return Evaluation(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def attack(self, name: str, *, model: nn.Module | None = None, **options: Any) -> Tensor:
        """Adversarial images (B, C, H, W) of a registered attack, on another model if one is given."""
        function = ATTACKS.get(name).function
        generators = self.generators(name)

        def attacked(rows: slice) -> Tensor:
            target = self.model if model is None else model
            found: Tensor = function(target, self.x[rows], self.y[rows], self.threat, generators=generators[rows], **options)
            return found

        return torch.cat(self._batched((name,), attacked))

    def ascend(self, threat: LpThreat, restarts: int, *purpose: str | int) -> Ascent:
        """The white-box attack of these checks: PGD on the margin, with its history."""
        generators = self.generators(*purpose)
        parts = self._batched(
            purpose,
            lambda rows: ascend(self.model, self.x[rows], self.y[rows], threat, generators[rows], STEPS, restarts),
        )
        return joined(parts)

    @cached_property
    def white_box(self) -> Ascent:
        """The white-box attack with all its restarts, at the size of the threat."""
        return self.ascend(self.threat, RESTARTS, "white-box")

    @cached_property
    def survives_white_box(self) -> np.ndarray:
        """Images that survive :attr:`white_box`, bool (B,)."""
        return self.survives(self.white_box.points)

    def survives(self, adversarial: Tensor) -> np.ndarray:
        """Whether each image is right, bool (B,); of a randomised model, in most of :data:`JUDGES` draws, always the same."""
        repeats = JUDGES if self.stochastic else 1
        keys = self.keys("judge")
        predicted = self._batched(("judge",), lambda rows: predictions(self.model, adversarial[rows], keys[rows], repeats))
        right = torch.cat(predicted) == self.y.cpu()[:, None]
        return (right.double().mean(dim=1) > 0.5).numpy()

    def _batched(self, purpose: tuple[str | int, ...], work: Callable[[slice], T]) -> list[T]:
        """Do ``work`` on batches of images, with the draws of their purpose announced."""
        keys = self.keys(*purpose)
        done = []
        for start in range(0, len(self), BATCH):
            rows = slice(start, start + BATCH)
            with _seeded(seed_of(self.seed, "diagnosis", *purpose, start)), draws_for(keys[rows]):
                done.append(work(rows))
        return done


def make_subject(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, seed: int, surrogates: dict[str, nn.Module]
) -> Subject:
    """A model and those of the images ``x`` (B, C, H, W) that it classifies as ``y`` (B,) says.

    A model whose logits vary from call to call is treated as randomised, whatever it says of itself.
    """
    everything = Subject(Attached(model), x, y, list(range(len(y))), threat, seed, surrogates)
    varies = not torch.equal(everything.logits(x, "varies", 0), everything.logits(x, "varies", 1))
    everything.model.stochastic = everything.model.stochastic or varies
    right = torch.from_numpy(everything.survives(x)).nonzero()[:, 0]
    return replace(everything, x=x[right.to(x.device)], y=y[right.to(y.device)], indices=right.tolist())


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global generator seeded for the block, and put back after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
