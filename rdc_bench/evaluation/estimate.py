"""What a plan will cost: how often each attack calls the model, times what a call costs on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks.calls import Calls, Subject, calls, in_turn, on_something_else
from rdc_bench.core.global_generators import model_apart, preserved
from rdc_bench.core.precision import full_float32
from rdc_bench.core.randomness import draws_for
from rdc_bench.evaluation.metering import metered
from rdc_bench.evaluation.plan import Plan, PlannedAttack
from rdc_bench.evaluation.witness import most
from rdc_bench.results.schema import CLEAN

#: About how long a call takes that is timed, in seconds: enough images for it, as far as there are any.
TIMED = 0.5
#: From where on a call is so long, in seconds, that its gradient is not timed.
LONG = 5.0
#: What a gradient then is taken to cost, in forward passes: one to evaluate the model, two to go back.
GRADIENT = 3.0


class Pass(NamedTuple):
    """What a call costs for one image: seconds, and network evaluations forward and backward."""

    seconds: float
    nfe_forward: float
    nfe_backward: float


class Rates(NamedTuple):
    """What the calls of a model cost on this machine, for its logits alone and for a gradient as well."""

    stochastic: bool
    plain: Pass
    gradient: Pass


class AttackEstimate(NamedTuple):
    """An attack (or the clean evaluation) of some images: evaluations for all of them, and seconds. None: not known."""

    attack: str
    nfe_forward: float | None = None
    nfe_backward: float | None = None
    seconds: float | None = None

    @property
    def nfe(self) -> float:
        """Network evaluations forward and backward, as far as they are known."""
        return (self.nfe_forward or 0.0) + (self.nfe_backward or 0.0)


class ModelEstimate(NamedTuple):
    """A model under all attacks of a plan, the clean evaluation first."""

    model: str
    attacks: list[AttackEstimate]

    @property
    def seconds(self) -> float:
        """Of all that is known."""
        return sum(attack.seconds or 0.0 for attack in self.attacks)

    @property
    def unknown(self) -> list[str]:
        """The attacks of which it is not known how long they take."""
        return [attack.attack for attack in self.attacks if attack.seconds is None]


def estimate(
    plan: Plan, rates: Mapping[str, Rates | None], left: Mapping[tuple[int, int], int] | None = None
) -> list[ModelEstimate]:
    """Evaluations and seconds for each model and attack of a plan.

    Args:
        rates: by the models' names, those that attacks transfer from among them; None where a model could not be timed.
        left: images that are still to be done, by the number of the model and of the attack (0: the clean evaluation). None:
            all of them.
    """
    estimates = []
    for number, model in enumerate(plan.models):
        rate = rates[model.name]
        found: list[AttackEstimate] = []
        for place, attack in enumerate([None, *plan.attacks]):
            images = len(plan.dataset) if left is None else left[number, place]
            if attack and attack.witness and rate:
                images = min(images, _witnessed(attack, rate, sum(each.nfe for each in found)))
            found.append(_estimate(plan, model.card.num_classes, attack, rate, rates, images))
        estimates.append(ModelEstimate(model.name, found))
    return estimates


def _witnessed(witness: PlannedAttack, rate: Rates, spent: float) -> int:
    """How many images a witness will be shown, at most; ``spent``: network evaluations on all other attacks."""
    if witness.if_doubted:  # there should be none
        return 0
    count = most(rate.plain.nfe_forward, rate.stochastic, bool(witness.attack.sources), spent)
    return sys.maxsize if count is None else count


def _estimate(
    plan: Plan,
    classes: int,
    attack: PlannedAttack | None,
    rate: Rates | None,
    rates: Mapping[str, Rates | None],
    images: int,
) -> AttackEstimate:
    label = attack.label if attack else CLEAN
    if not images:
        return AttackEstimate(label, 0.0, 0.0, 0.0)
    if rate is None:
        return AttackEstimate(label)
    judged = Calls(plan.repeats if rate.stochastic else 1)
    subject = Subject(rate.stochastic, classes, plan.threat.kind)
    made = calls(attack.label, attack.options, subject) if attack else Calls()
    total = in_turn([made, judged])
    if total is None:
        return AttackEstimate(label)
    seconds = total.plain * rate.plain.seconds + total.backward * rate.gradient.seconds
    if attack and attack.sources:
        of_sources, on_each = [rates.get(source.name) for source in attack.sources], on_something_else(attack.options, subject)
        if on_each is None or None in of_sources:
            return AttackEstimate(label)
        seconds += sum(on_each.backward * source.gradient.seconds for source in of_sources if source)
    return AttackEstimate(
        label,
        images * (total.plain * rate.plain.nfe_forward + total.backward * rate.gradient.nfe_forward),
        images * total.backward * rate.gradient.nfe_backward,
        images * seconds,
    )


@full_float32()
def timed(model: nn.Module, images: Tensor, *, gradients: bool) -> Rates | None:
    """What the calls of a model cost, from a few of the images (B, C, H, W); None where they cannot be timed.

    Args: images: on the model's device. gradients: whether any will be taken; if not, they are not timed.
    """
    stochastic = bool(getattr(model, "stochastic", False))
    try:
        with preserved(images.device), model_apart(model, images.device, 0):
            plain = _plain(model, images[:1])
            if plain.seconds < TIMED:
                images = images[: max(int(TIMED / max(plain.seconds, 1e-6)), 1)]
                plain = _plain(model, images)
            if gradients and plain.seconds < LONG:
                return Rates(stochastic, plain, _gradient(model, images))
    except Exception:  # what is wrong with a model is told, in its own words, where the model is evaluated
        return None
    return Rates(stochastic, plain, Pass(GRADIENT * plain.seconds, plain.nfe_forward, 2 * plain.nfe_forward))


def _plain(model: nn.Module, images: Tensor) -> Pass:
    with torch.no_grad():
        return _pass(model, images, lambda x: model(x).sum().item())


def _gradient(model: nn.Module, images: Tensor) -> Pass:
    with torch.enable_grad():
        return _pass(
            model, images.clone().requires_grad_(True), lambda x: torch.autograd.grad(model(x).sum(), x)[0].sum().item()
        )


def _pass(model: nn.Module, images: Tensor, call: Callable[[Tensor], float]) -> Pass:
    with draws_for([("time", i) for i in range(len(images))]), metered(model) as meter:
        began = time.perf_counter()
        call(images)
        seconds = time.perf_counter() - began
    return Pass(*(total / len(images) for total in (seconds, meter.forward, meter.backward)))
