"""What an adapter has to know about a library of attacks."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from rdc_bench.threats import LpThreat

#: Step sizes that libraries state in pixels for the default ε beside them; see :meth:`Library.options`.
STEP_SIZES = ("alpha", "eps_step")


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
