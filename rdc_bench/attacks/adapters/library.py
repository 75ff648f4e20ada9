"""What an adapter has to know about a library of attacks."""

from __future__ import annotations

import inspect
import math
import re
from abc import ABC, abstractmethod
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from annotated_types import Ge
from torch import Tensor, nn

from rdc_bench.attacks.options import PLAIN, Count, Positive, is_count, resolved
from rdc_bench.threats import LpThreat

#: Step sizes that libraries state in pixels for the default ε beside them; see :meth:`Library.options`.
STEP_SIZES = ("alpha", "eps_step")

#: Names of options that, at 0, leave an attack where it stands.
STRIDES = re.compile(r"^(?!min_)(.*_)?(alpha|step|step_?size|lr|learning_rate)$")


class Library(ABC):
    """A library whose attacks are classes: constructed with options, then called on images and labels.

    Attributes:
        name: prefix of the attacks' names, and the package to import. distribution: the name to ask for its version.
        namespace: the module whose classes are its attacks. install: the command that installs it.
        reserved: arguments of constructors that are not options, because the threat, the model or the adapter decides them.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    namespace: ClassVar[str]
    install: ClassVar[str]
    reserved: ClassVar[frozenset[str]]

    @abstractmethod
    def classes(self) -> dict[str, type]:
        """All attacks by name. Raises ``ImportError`` where the library is absent."""

    @abstractmethod
    def norms(self, cls: type) -> tuple[str, ...]:
        """The kinds of ball (linf, l2, l1) that the attack is made for; none for an attack that is made for something else."""

    @abstractmethod
    def black_box(self, cls: type) -> bool:
        """Whether the attack needs logits or decisions only."""

    @abstractmethod
    def attack(
        self, cls: type, model: nn.Module, x: Tensor, y: Tensor, threat: LpThreat, options: dict[str, Any], seed: int
    ) -> Any:
        """What the library returns for the images ``x`` (B, C, H, W) with labels ``y`` (B,), as a tensor.

        Args: options: keyword arguments for the constructor. seed: for attacks that seed themselves.
        """

    def options(self, cls: type) -> dict[str, Any]:
        """Options of the constructor with their defaults.

        A step size that goes with a default ε is None: it is scaled to the threat's ε (:meth:`step_sizes`).
        """
        found = {p.name: p.default for p in parameters(cls).values() if p.name not in self.reserved and _is_plain(p.default)}
        return found | dict.fromkeys(_shares(cls))

    def types(self, cls: type) -> dict[str, Any]:
        """What values each option takes, as far as the constructor's annotations and defaults tell.

        A number that is not negative by default may never be, nor be 0 where the option's name tells that the attack would then
        do nothing.
        """
        names = getattr(cls.__init__, "__globals__", {})  # type: ignore[misc]
        return {
            name: _type(name, resolved(parameters(cls)[name].annotation, names), parameters(cls)[name].default, default)
            for name, default in self.options(cls).items()
        }

    def missing(self, cls: type) -> list[str]:
        """Arguments that the constructor demands and nothing here can give."""
        return [p.name for p in parameters(cls).values() if p.default is p.empty and p.name not in self.reserved]

    def step_sizes(self, cls: type, eps: float) -> dict[str, float]:
        """The library's default step sizes, as the share of its default ε that they are."""
        return {name: share * eps for name, share in _shares(cls).items()}


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The named arguments of the constructor, without ``self``."""
    signature = inspect.signature(cls)
    return {p.name: p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _type(name: str, annotation: Any, constructor_default: Any, default: Any) -> Any:
    """The type of one option. What cannot be written on a command line is left out of the library's own."""
    parts = get_args(annotation) if _is_union(annotation) else (annotation,)
    plain = [part for part in parts if part in (*PLAIN, NoneType) or get_origin(part) is Literal]
    counted = is_count(name, constructor_default)
    if not plain and type(constructor_default) in PLAIN:
        # An integer for a default is often short for a float, as in c=1.
        short = type(constructor_default) is int and not counted
        plain = [float if short else type(constructor_default)]
    if not plain:
        return Any
    kinds = [_bounded(name, part, constructor_default, counted) if part in (int, float) else part for part in plain]
    return Union[tuple([*kinds, NoneType] if default is None else kinds)]  # noqa: UP007, of as many as there are


def _bounded(name: str, kind: type, default: Any, counted: bool) -> Any:
    if counted and kind is int:
        return Count
    if STRIDES.search(name) and (default is None or default > 0):
        return Positive
    return Annotated[kind, Ge(0)] if isinstance(default, (int, float)) and default >= 0 else kind


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _shares(cls: type) -> dict[str, float]:
    takes = parameters(cls)
    eps = takes["eps"].default if "eps" in takes else None
    if not isinstance(eps, float):
        return {}
    return {name: takes[name].default / eps for name in STEP_SIZES if name in takes and isinstance(takes[name].default, float)}


def _is_plain(value: Any) -> bool:
    """Whether ``value`` can be written on a command line and in a record."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))
