"""The size of a perturbation, as the user wrote it and as an exact number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rdc_bench.core.errors import UserError

# The digits are bounded so that every number read is finite, and not zero, as a float.
_DECIMAL = r"(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?"
_NUMBER = re.compile(rf"\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL})\s*)?", re.ASCII)


@dataclass(frozen=True)
class Eps:
    """``text`` as given, e.g. ``"8/255"``; ``value`` the exact fraction."""

    text: str
    value: Fraction

    def __float__(self) -> float:
        return float(self.value)


def parse_eps(text: str | float | Fraction | Eps) -> Eps:
    """Read ``"8/255"``, ``"0.5"`` or a number. Raises ``UserError`` for anything but a positive, finite number."""
    if isinstance(text, Eps):
        return text
    text = str(text).strip()
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UserError(f"eps {text!r} is not a positive number such as 8/255 or 0.5")
    numerator, denominator = Fraction(match[1]), Fraction(match[2] or 1)
    if denominator == 0:
        raise UserError(f"eps {text!r} divides by zero; write it as 8/255 or 0.5")
    if numerator == 0:
        raise UserError(f"eps {text!r} is zero, which leaves the attacker nothing; write it as 8/255 or 0.5")
    return Eps(text, numerator / denominator)
