"""How often the attacks of this package call a model, from their options; of others nothing is known, and nothing is guessed.

The counts are those for an image that stands to the end. Some attacks stop at images that they have broken, so a model that
breaks early takes less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from rdc_bench.attacks import ATTACKS, source_names
from rdc_bench.attacks.black_box.transfer import MAKERS
from rdc_bench.attacks.lp.ensemble import stages
from rdc_bench.attacks.lp.square import REFRESH


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


Options = Mapping[str, Any]
Formula = Callable[[Options, Subject], Calls | None]


def in_turn(parts: Iterable[Calls | None]) -> Calls | None:
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
        return in_turn(FORMULAS[name]({**usual, **o, "restarts": count}, subject) for name, count in restarts.items())

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
    return in_turn(parts)


def _transfer(o: Options, subject: Subject) -> Calls:
    """On the model itself. What it costs on its sources is :func:`on_something_else`."""
    return Calls(0 if o["together"] else o["eot"] * (1 + len(source_names(o["sources"]))))


def on_something_else(o: Options, subject: Subject) -> Calls | None:
    """The threat's own attack, which others carry out on something else than the model."""
    maker = MAKERS[subject.kind]
    name = f"apgd-{o.get('loss', 'margin')}" if maker == "apgd" else maker
    attack = ATTACKS.get(name)
    given = {option: value for option, value in o.items() if option in ("steps", "loss") and option in attack.defaults}
    return FORMULAS[name](attack.options(given), subject) if name in FORMULAS else None


def _nes(o: Options, subject: Subject) -> Calls | None:
    made = on_something_else(o, subject)
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


def calls(name: str, options: Options, subject: Subject) -> Calls | None:
    """How often an attack calls a model for an image that stands to the end; None where that is not known."""
    formula = FORMULAS.get(name)
    is_ours = formula and ATTACKS.entry(name).origin == "rdc_bench"
    return formula(options, subject) if formula and is_ours else None
