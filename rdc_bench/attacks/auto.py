"""AutoAttack and its parts (Croce & Hein 2020, arXiv 2003.01690), from the library ``pyautoattack``.

The library draws from torch's global generator, in the shape of the images that it has not fooled yet, so that the result for
an image depends on its company. Here every draw is diverted to a generator of our own, and a draw in the shape of images is
made for one image and given to all. The calls come in the same order whatever the batch is, and an image that is still
attacked has seen them all: its result depends on itself alone. The price is that all images share their random starts and
squares, which are moreover the same for every seed and repeat.

A stochastic model is attacked one image at a time, because the rows of a batch that the library has thinned out could not be
matched with images any more; there each image has draws of its own. The library calls an image broken after one lucky draw
and stops. On stochastic models, prefer the attacks of this package.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from pyautoattack import AutoAttack, checks
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rdc_bench.attacks import attack
from rdc_bench.attacks.options import Count, least_classes
from rdc_bench.randomness import generator, only_row
from rdc_bench.threats import LpThreat

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

Predict = Callable[[Tensor], Tensor]
#: What the library does: (model, images, labels, number of classes K) to adversarial images.
Library = Callable[[Predict, Tensor, Tensor, int], Tensor]


@attack("fab", threats=["linf", "l2", "l1"], minimum_norm=True)
def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    restarts: Count = 1,
) -> Tensor:
    """Fast adaptive boundary attack (Croce & Hein 2020, arXiv 1907.02044), which seeks the nearest adversarial image.

    Options:
        steps: per restart. restarts: the first from the image itself, others from random points.
    """
    return _attack_in_library("fab", model, x, y, threat, generators, _fab(threat, steps, restarts, targeted=False))


@attack("fab-t", threats=["linf", "l2", "l1"], minimum_norm=True)
def fab_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    steps: Count = 100,
    restarts: Count = 1,
) -> Tensor:
    """FAB towards each of the up to 9 likeliest wrong classes; much cheaper than FAB for many classes. Options as for fab."""
    return _attack_in_library("fab-t", model, x, y, threat, generators, _fab(threat, steps, restarts, targeted=True))


@attack("square", threats=["linf", "l2", "l1"], gradient="black-box")
def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    *,
    generators: Sequence[torch.Generator],
    queries: Count = 5000,
    restarts: Count = 1,
    loss: Literal["margin", "ce"] = "margin",
) -> Tensor:
    """Square attack, a random search that needs logits only (Andriushchenko et al. 2020, arXiv 1912.00049).

    Options:
        queries: per restart. restarts: independent random starts. loss: margin or ce.
    """

    def library(predict: Predict, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
        attacker = SquareAttack(
            predict, NORMS[threat.kind], n_queries=queries, eps=threat.eps, n_restarts=restarts, loss=loss, resc_schedule=False
        )
        return attacker.perturb(x, y)

    return _attack_in_library("square", model, x, y, threat, generators, library)


@attack("autoattack", threats=["linf", "l2"], check=least_classes(4))
def autoattack_standard(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generators: Sequence[torch.Generator]
) -> Tensor:
    """AutoAttack, standard: APGD-CE, APGD-T, FAB-T and Square in cascade (Croce & Hein 2020, arXiv 2003.01690)."""
    return _attack_in_library("autoattack", model, x, y, threat, generators, _cascade("standard", threat))


@attack("autoattack-plus", threats=["linf", "l2"], check=least_classes(4))
def autoattack_plus(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generators: Sequence[torch.Generator]
) -> Tensor:
    """AutoAttack, plus: all six attacks, APGD-CE, APGD-DLR and FAB with five restarts."""
    return _attack_in_library("autoattack-plus", model, x, y, threat, generators, _cascade("plus", threat))


@attack("autoattack-rand", threats=["linf", "l2"], check=least_classes(3))
def autoattack_rand(
    model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, *, generators: Sequence[torch.Generator], eot: Count = 20
) -> Tensor:
    """AutoAttack, rand: APGD-CE and APGD-DLR with expectation over transformation.

    Options:
        eot: draws of the model's randomness averaged per step.
    """
    return _attack_in_library("autoattack-rand", model, x, y, threat, generators, _cascade("rand", threat, eot=eot))


def _fab(threat: LpThreat, steps: int, restarts: int, *, targeted: bool) -> Library:
    def library(predict: Predict, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
        attacker = FABAttack_PT(
            predict,
            NORMS[threat.kind],
            n_restarts=restarts,
            n_iter=steps,
            eps=threat.eps,
            targeted=targeted,
            n_target_classes=min(9, num_classes - 1),
        )
        return attacker.perturb(x, y)

    return library


def _cascade(version: str, threat: LpThreat, eot: int = 1) -> Library:
    def library(predict: Predict, x: Tensor, y: Tensor, num_classes: int) -> Tensor:
        cascade = AutoAttack(predict, device=x.device, eps=threat.eps, norm=NORMS[threat.kind], seed=0, version=version)
        cascade.fab.n_target_classes = cascade.apgd_targeted.n_target_classes = min(9, num_classes - 1)
        cascade.apgd.eot_iter = eot
        adversarial, _ = cascade.run_standard_evaluation(x, y, batch_size=len(x))
        return adversarial

    return library


def _attack_in_library(
    name: str,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: LpThreat,
    generators: Sequence[torch.Generator],
    library: Library,
) -> Tensor:
    """Run ``library`` on the batch, or image by image on a stochastic model; projected images (B, C, H, W)."""
    x = x.float().contiguous()

    def run(x: Tensor, y: Tensor, draws: torch.Generator) -> Tensor:
        num_classes = model(x).shape[1]
        diverted = _DivertedDraws(draws)
        with diverted:
            return library(diverted.outside(model), x, y, num_classes)

    with _contained(model):
        if getattr(model, "stochastic", False):
            found = []
            for i, draws in enumerate(generators):
                with only_row(i):
                    found.append(run(x[i : i + 1], y[i : i + 1], draws))
            adversarial = torch.cat(found)
        else:
            adversarial = run(x, y, generator("pyautoattack", name))
    return threat.project(x, adversarial)


class _DivertedDraws(TorchFunctionMode):
    """Lets ``torch.rand`` and ``torch.randn`` draw from ``draws``, the same for every image of a batch."""

    def __init__(self, draws: torch.Generator) -> None:
        super().__init__()
        self._draws = draws
        self._paused = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._paused or func not in (torch.rand, torch.randn):
            return func(*args, **(kwargs or {}))
        shape = tuple(args[0])
        if len(shape) != 4:
            return func(shape, generator=self._draws)
        return func((1, *shape[1:]), generator=self._draws).repeat(shape[0], 1, 1, 1)

    def outside(self, model: nn.Module) -> Predict:
        """``model`` as the library may call it: what the model itself draws is not diverted."""

        def predict(x: Tensor) -> Tensor:
            self._paused = True
            try:
                return model(x)
            finally:
                self._paused = False

        return predict


@contextlib.contextmanager
def _contained(model: nn.Module) -> Iterator[None]:
    """Keep the library's side effects inside.

    It seeds the global generators, ends the tracing of debuggers and coverage tools, counts the backward calls of one model
    towards its verdict on the next, logs warnings on what the evaluation judges itself, and leaves gradients in parameters.
    """
    trace, counts = sys.gettrace(), dict(checks.funcs)
    logger = logging.getLogger("auto-attack")
    silenced, logger.disabled = logger.disabled, True
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with torch.random.fork_rng(), torch.no_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        logger.disabled = silenced
        checks.funcs.update(counts)
        sys.settrace(trace)
