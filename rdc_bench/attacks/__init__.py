"""The registry of attacks.

An attack is a function (or an object with ``__call__``)::

    @attack("my-attack", threats=["linf"])
    def my_attack(model, x, y, threat, *, generator, steps: int = 20):
        ...  # -> adversarial images, same shape as x

``model`` maps images (B, C, H, W) in [0, 1] to logits (B, K); ``y`` holds the true labels (B,); ``threat`` says what is
allowed. Everything after ``*`` apart from the generator is an option, with a default. Its type says which values it takes
(:mod:`rdc_bench.attacks.options`), as in ``steps: Count = 20`` or ``mode: Literal["fast", "slow"] = "fast"``; others are
refused before anything is computed. An option ``gradient`` chooses how a model that leaves the choice is differentiated
(:mod:`rdc_bench.attacks.gradient`), and the records name it.

An attack that takes ``generator`` is called with one image at a time, so that its draws cannot depend on the batch. One that
takes ``generators`` instead is called with a batch and one generator per image; it must treat the images independently, call
the model only on whole batches (or on ``r`` copies of the whole batch, one after the other) and never drop images on the way.
It may do otherwise where a batch cannot matter: on models that are not ``stochastic``, and inside a
:func:`~rdc_bench.randomness.draws_for` of its own, whose keys come from the images' generators.

The attack does not judge itself: the evaluation checks the threat set, calls the model again and decides.

``foolbox:NAME``, ``torchattacks:NAME`` and ``art:NAME`` are attacks of those libraries (:mod:`rdc_bench.attacks.adapters`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rdc_bench.attacks.options import REFERENCE, Check, Option, declared, helps, in_words, needed_classes, settled
from rdc_bench.errors import UserError, unknown_name
from rdc_bench.registry import Registry, origin_of

if TYPE_CHECKING:
    from rdc_bench.threats import Threat

__all__ = ["ATTACKS", "Attack", "attack", "list_attacks", "source_names"]

AttackFunction = Callable[..., Any]


@dataclass(frozen=True)
class Attack:
    """A registered attack.

    Attributes:
        function: the callable. name: its name. threats: the threat kinds it can attack under.
        gradient: how it uses the model: ``"white-box"`` (differentiates it) or ``"black-box"`` (logits only).
        needs: the attack of another library that does its work; looked for when its options are settled.
        minimum_norm: whether it seeks the nearest adversarial image, so that its distances give accuracy against every ε.
        neutral: options that do nothing at the values given here. At these values they are no part of what identifies a run, so
            that an attack can gain an option and earlier runs are still found.
        sources: the option that names the models on which it looks for images; ``auto`` is every baseline of the dataset. A run
            settles and records which models these are.
        check: what the types of single options cannot say, such as that one may not exceed another: it gets all options, the
            threat and the number of classes, and returns what is wrong in words, or nothing.
    """

    name: str
    function: AttackFunction
    threats: tuple[str, ...]
    gradient: str = "white-box"
    needs: str = ""
    minimum_norm: bool = False
    neutral: Mapping[str, Any] = field(default_factory=dict)
    sources: str = ""
    check: Check | None = None

    @property
    def batched(self) -> bool:
        """Whether it takes a batch with one generator per image."""
        return "generators" in self._parameters

    @property
    def summary(self) -> str:
        """First line of its documentation."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Options and their default values."""
        return {
            p.name: p.default
            for p in self._parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in ("generator", "generators")
        }

    @property
    def settings(self) -> list[Option]:
        """Its options in words: the type, what values are allowed, the default, and what its documentation says of each."""
        documentation = inspect.getdoc(self.function) or ""
        said = helps(documentation, self.defaults)
        reference = REFERENCE.search(documentation)
        if reference and reference[1] in ATTACKS.names():
            said = {o.name: o.help for o in ATTACKS.get(reference[1]).settings} | said
        return [in_words(name, self._kind(name), default, said.get(name, "")) for name, default in self.defaults.items()]

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        """All options, defaults and ``given``.

        Raises:
            UserError: the attack does not take an option or its value, or the library that it needs is absent.
        """
        if self.needs:
            ATTACKS.get(self.needs)
        for name in given:
            if name not in self.defaults:
                takes = ", ".join(self.defaults) or "none"
                raise unknown_name(f"option of attack {self.name}", name, self.defaults, f"It takes: {takes}.")
        return self.defaults | {name: settled(self.name, name, self._kind(name), value) for name, value in given.items()}

    def check_together(self, options: Mapping[str, Any], threat: Threat, num_classes: int) -> None:
        """Raise ``UserError`` for options that each are right by themselves but not together, or not here.

        Args: options: all of them. num_classes: of the models to attack.
        """
        for name, value in options.items():
            wrong = needed_classes(self._kind(name), value, num_classes)
            if wrong:
                raise UserError(f"attack {self.name}: {name}={value}: {wrong}")
        wrong = self.check(options, threat, num_classes) if self.check else ""
        if wrong:
            raise UserError(f"attack {self.name}: {wrong}")

    def in_force(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the options that do something, see ``neutral``."""
        return {name: value for name, value in options.items() if name not in self.neutral or value != self.neutral[name]}

    def _kind(self, option: str) -> Any:
        """The type of an option."""
        names = getattr(inspect.unwrap(self._called), "__globals__", {})
        parameter = self._parameters[option]
        return declared(option, parameter.annotation, parameter.default, names)

    @property
    def _called(self) -> Any:
        return self.function if inspect.isroutine(self.function) else type(self.function).__call__

    @property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self._called).parameters)


ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "fgsm": "rdc_bench.attacks.pgd:fgsm",
        "pgd": "rdc_bench.attacks.pgd:pgd",
        "apgd-ce": "rdc_bench.attacks.apgd:apgd_ce",
        "apgd-dlr": "rdc_bench.attacks.apgd:apgd_dlr",
        "apgd-margin": "rdc_bench.attacks.apgd:apgd_margin",
        "apgd-t": "rdc_bench.attacks.apgd:apgd_targeted",
        "lagrange": "rdc_bench.attacks.lagrange:lagrange",
        "transfer": "rdc_bench.attacks.transfer:transfer",
        "nes": "rdc_bench.attacks.nes:nes",
        "fab": "rdc_bench.attacks.auto:fab",
        "fab-t": "rdc_bench.attacks.auto:fab_targeted",
        "square": "rdc_bench.attacks.auto:square",
        "square-eot": "rdc_bench.attacks.square:square_eot",
        "autoattack": "rdc_bench.attacks.auto:autoattack_standard",
        "autoattack-plus": "rdc_bench.attacks.auto:autoattack_plus",
        "autoattack-rand": "rdc_bench.attacks.auto:autoattack_rand",
        "ensemble": "rdc_bench.attacks.ensemble:ensemble",
        "selective": "rdc_bench.attacks.selective:selective",
        "fmn": "rdc_bench.attacks.fmn:fmn",
        "ddn": "rdc_bench.attacks.ddn:ddn",
        "stadv": "rdc_bench.attacks.stadv:stadv",
        "jpeg": "rdc_bench.attacks.jpeg:jpeg",
        "recolor": "rdc_bench.attacks.recolor:recolor",
        "elastic": "rdc_bench.attacks.elastic:elastic",
        "fog": "rdc_bench.attacks.fog:fog",
        "patch": "rdc_bench.attacks.patch:patch",
        "snow": "rdc_bench.attacks.snow:adversarial_snow",
        "gabor": "rdc_bench.attacks.gabor:gabor",
        "low-frequency": "rdc_bench.attacks.low_frequency:low_frequency",
        "corruptions": "rdc_bench.attacks.corruptions:corruptions",
        "ppgd": "rdc_bench.attacks.perceptual:ppgd",
        "lpa": "rdc_bench.attacks.perceptual:lpa",
        "apgd-l1": "rdc_bench.attacks.apgd_l1:apgd_l1",
        "rotation-translation": "rdc_bench.attacks.rotation_translation:rotation_translation",
        "rotation-translation-grid": "rdc_bench.attacks.rotation_translation:rotation_translation_grid",
        "rotation-translation-random": "rdc_bench.attacks.rotation_translation:rotation_translation_random",
    },
    Attack,
    adapters=dict.fromkeys(("foolbox", "torchattacks", "art"), "rdc_bench.attacks.adapters:adapt"),
)


def attack(
    name: str,
    *,
    threats: Sequence[str],
    gradient: str = "white-box",
    needs: str = "",
    minimum_norm: bool = False,
    neutral: Mapping[str, Any] | None = None,
    sources: str = "",
    check: Check | None = None,
) -> Callable[[Any], Attack]:
    """Register a function, or an object or class with ``__call__``, as the attack ``name`` under the given threat kinds.

    The other arguments are described at :class:`Attack`.
    """

    def decorate(function: Any) -> Attack:
        if isinstance(function, type):
            function = function()
        made = Attack(name, function, tuple(threats), gradient, needs, minimum_norm, neutral or {}, sources, check)
        parameters = made._parameters
        if "generator" not in parameters and "generators" not in parameters:
            raise UserError(f"attack {name!r} takes neither `generator` nor `generators`, so its draws cannot be controlled")
        missing = [option for option, default in made.defaults.items() if default is inspect.Parameter.empty]
        if missing:
            raise UserError(f"attack {name!r}: option {missing[0]!r} has no default")
        module = inspect.getmodule(function if inspect.isroutine(function) else type(function))
        ATTACKS.register(name, made, origin_of(module))
        return made

    return decorate


def source_names(names: str) -> list[str]:
    """The models that an attack's ``sources`` option names, separated by commas."""
    return [name.strip() for name in names.split(",")]


def list_attacks() -> list[str]:
    """Names of all attacks."""
    return ATTACKS.names()
