from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.core.eps import parse_eps
from rdc_bench.core.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", Fraction(8, 255)),
        (" 8 / 255 ", Fraction(8, 255)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1.", Fraction(1)),
        ("0.5/2", Fraction(1, 4)),
        (0.05, Fraction(1, 20)),
        (2, Fraction(2)),
        (1e-5, Fraction(1, 100000)),
        ("1e-5", Fraction(1, 100000)),
        (Fraction(8, 255), Fraction(8, 255)),
    ],
)
def test_readable(text: str | float | Fraction, value: Fraction) -> None:
    assert parse_eps(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        *("8/0", "0", "0e5", "0/255", "-1", "-8/255", "nan", "inf", "1e400", "1e-400", "9" * 400, "9" * 5000),
        *("", " ", "8/", "/255", "8//255", "8/255/2", "٨/٢٥٥", "½", "eight"),
    ],
)
def test_unreadable(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_eps(text)
    assert "8/255" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -0.1, 0.0])
def test_numbers_without_sense(number: float) -> None:
    with pytest.raises(UserError):
        parse_eps(number)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_fractions_are_exact_and_survive_a_round_trip(numerator: int, denominator: int) -> None:
    eps = parse_eps(f"{numerator}/{denominator}")
    assert eps.value == Fraction(numerator, denominator)
    assert parse_eps(eps) is eps
    assert parse_eps(eps.text) == eps
    assert float(eps) == numerator / denominator


def test_the_text_is_kept() -> None:
    assert parse_eps(" 8/255 ").text == "8/255"
    assert parse_eps("0.50").text == "0.50"


def test_extreme_numbers_are_finite_and_positive() -> None:
    assert 0 < float(parse_eps("1e-99/9e99")) < float(parse_eps("9e99/1e-99")) < float("inf")
