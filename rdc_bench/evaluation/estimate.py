"""What a plan will cost: how often each attack calls the model, times what a call costs on this machine.

How often is known of the attacks of this package, from their options; of others nothing is known, and nothing is guessed. The
counts are those for an image that stands to the end. Some attacks stop at images that they have broken, so a model that breaks
early takes less.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rdc_bench.attacks import ATTACKS, source_names
from rdc_bench.attacks.ensemble import stages
from rdc_bench.attacks.square import REFRESH
from rdc_bench.attacks.transfer import MAKERS
from rdc_bench.evaluation.metering import metered
from rdc_bench.evaluation.plan import Plan, PlannedAttack
from rdc_bench.evaluation.witness import CHEAP, LEAST, PASSES, SHARE
from rdc_bench.global_generators import model_apart, preserved
from rdc_bench.precision import full_float32
from rdc_bench.randomness import draws_for
from rdc_bench.results.schema import CLEAN

#: About how long a call takes that is timed, in seconds: enough images for it, as far as there are any.
TIMED = 0.5
#: From where on a call is so long, in seconds, that its gradient is not timed.
LONG = 5.0
#: What a gradient then is taken to cost, in forward passes: one to evaluate the model, two to go back.
GRADIENT = 3.0


class Calls(NamedTuple):
    """How often one image goes through a model, forward, and how often a gradient goes back."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def plain(self) -> float:
        """Passes forward that no gradient needs. A gradient for each of K classes goes back K times after one pass."""
        return self.forward - self.backward


class Subject(NamedTuple):
    """What the calls of an attack depend on besides its options. ``classes``: their number K. ``kind``: the threat's."""

    stochastic: bool
    classes: int
    kind: str


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


Options = Mapping[str, Any]
Formula = Callable[[Options, Subject], Calls | None]


def _sum(parts: Iterable[Calls | None]) -> Calls | None:
    """All of them, one after the other; None where one is not known."""
    known = list(parts)
    return None if None in known else Calls(*(sum(counts) for counts in zip(*(part for part in known if part), strict=True)))


def _gradients(count: float) -> Calls:
    return Calls(count, count)


def _ascent(o: Options, subject: Subject) -> Calls:
    """Steps from every start, the last point looked at as well."""
    return _gradients(o.get("restarts", 1) * (o["steps"] + 1) * o["eot"])


def _apgd(o: Options, subject: Subject) -> Calls:
    gradients = _ascent(o, subject).backward
    return Calls(o["eot"] + gradients, gradients)


def _apgd_targeted(o: Options, subject: Subject) -> Calls:
    targets = min(o["n_target_classes"], subject.classes - 1)
    gradients = targets * _ascent(o, subject).backward
    return Calls(o["eot"] + gradients, gradients)


def _selective(o: Options, subject: Subject) -> Calls:
    if not subject.stochastic:
        return _ascent({**o, "eot": 1}, subject)
    surveys = len({*range(0, o["steps"] + 1, o["period"]), o["steps"]})
    return _gradients(o["restarts"] * (surveys * o["draws"] + o["steps"] * min(o["chosen"], o["draws"])))


def _fmn(o: Options, subject: Subject) -> Calls:
    return _gradients((o["steps"] + 1) * (o["eot"] if subject.stochastic else 1))


def _fab(o: Options, subject: Subject) -> Calls:
    steps = o["restarts"] * o["steps"]
    return Calls(2 * steps + 2 * o["restarts"] + 2, subject.classes * steps)


def _fab_targeted(o: Options, subject: Subject) -> Calls:
    runs = o["restarts"] * min(9, subject.classes - 1)
    return Calls(2 + runs * (2 * o["steps"] + 3), runs * o["steps"])


def _square(o: Options, subject: Subject) -> Calls:
    return Calls(2 + o["restarts"] * (o["queries"] + 2))


def _square_eot(o: Options, subject: Subject) -> Calls:
    if not subject.stochastic:
        return Calls(o["queries"] + 2)
    return Calls((1 + o["queries"] + o["queries"] // REFRESH) * o["eot"])


def _autoattack(restarts: Mapping[str, int]) -> Formula:
    """A version of AutoAttack: its attacks with the restarts of each, all at the lengths that the library gives them."""
    usual = {"steps": 100, "queries": 5000, "n_target_classes": 9, "eot": 1}

    def formula(o: Options, subject: Subject) -> Calls | None:
        return _sum(FORMULAS[name]({**usual, **o, "restarts": count}, subject) for name, count in restarts.items())

    return formula


def _ensemble(o: Options, subject: Subject) -> Calls | None:
    """All stages but the search for those images on which gradients fail, of which there should be none."""
    checks = o["checks"] if subject.stochastic else 1
    parts: list[Calls | None] = [Calls(checks + 1, 1)]
    chosen = {name: o[name] for name in ("steps", "queries", "eot", "gradient")}
    for stage in stages(subject.classes, subject.stochastic, **chosen):
        if not stage.blind:
            attack = ATTACKS.get(stage.attack)
            parts += [FORMULAS[stage.attack](attack.options(stage.options), subject), Calls(checks)]
    return _sum(parts)


def _transfer(o: Options, subject: Subject) -> Calls:
    """On the model itself. What it costs on its sources is added by :func:`estimate`."""
    return Calls(0 if o["together"] else o["eot"] * (1 + len(source_names(o["sources"]))))


def _made(o: Options, subject: Subject) -> Calls | None:
    """The threat's own attack, which others carry out on something else than the model."""
    maker = MAKERS[subject.kind]
    name = f"apgd-{o.get('loss', 'margin')}" if maker == "apgd" else maker
    attack = ATTACKS.get(name)
    given = {option: value for option, value in o.items() if option in ("steps", "loss") and option in attack.defaults}
    return FORMULAS[name](attack.options(given), subject) if name in FORMULAS else None


def _nes(o: Options, subject: Subject) -> Calls | None:
    made = _made(o, subject)
    return made and Calls(made.forward + 2 * o["pairs"] * made.backward)


#: How often each attack calls the model for an image that stands to the end.
FORMULAS: dict[str, Formula] = {
    "fgsm": lambda o, subject: _gradients(o["eot"]),
    **dict.fromkeys(("pgd", "apgd-l1", "lagrange", "stadv"), _ascent),
    **dict.fromkeys(("recolor", "elastic", "jpeg", "fog", "snow", "gabor", "low-frequency", "rotation-translation"), _ascent),
    **dict.fromkeys(("apgd-ce", "apgd-dlr", "apgd-margin"), _apgd),
    "apgd-t": _apgd_targeted,
    "patch": lambda o, subject: _gradients(o["eot"] * (1 + o["places"] * (o["steps"] + 1))),
    "selective": _selective,
    "fmn": _fmn,
    "fab": _fab,
    "fab-t": _fab_targeted,
    "square": _square,
    "square-eot": _square_eot,
    "autoattack": _autoattack({"apgd-ce": 1, "apgd-t": 1, "fab-t": 1, "square": 1}),
    "autoattack-plus": _autoattack({"apgd-ce": 5, "apgd-dlr": 5, "fab": 5, "square": 1, "apgd-t": 1, "fab-t": 1}),
    "autoattack-rand": _autoattack({"apgd-ce": 1, "apgd-dlr": 1}),
    "ensemble": _ensemble,
    "transfer": _transfer,
    "nes": _nes,
    "rotation-translation-grid": lambda o, subject: Calls(o["rotations"] * o["translations"] ** 2 * o["eot"]),
    "rotation-translation-random": lambda o, subject: Calls(o["queries"] * o["eot"]),
}


def calls(planned: PlannedAttack, subject: Subject) -> Calls | None:
    """How often an attack calls a model for an image that stands to the end; None where that is not known."""
    formula = FORMULAS.get(planned.label)
    is_ours = formula and ATTACKS.entry(planned.label).origin == "rdc_bench"
    return formula(planned.options, subject) if formula and is_ours else None


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
    if (rate.plain.nfe_forward <= CHEAP and not rate.stochastic) or witness.sources:
        return sys.maxsize
    return max(LEAST, round(SHARE * spent / (PASSES * rate.plain.nfe_forward)))


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
    made = calls(attack, subject) if attack else Calls()
    total = _sum([made, judged])
    if total is None:
        return AttackEstimate(label)
    seconds = total.plain * rate.plain.seconds + total.backward * rate.gradient.seconds
    if attack and attack.sources:
        of_sources, on_each = [rates.get(source.name) for source in attack.sources], _made(attack.options, subject)
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
