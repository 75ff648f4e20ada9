import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.results.statistics import mcnemar, wilson


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_solves_its_defining_equation(n, share):
    """The bounds are the p with |p̂ − p| = z √(p(1−p)/n) (Wilson 1927)."""
    p_hat = round(share * n) / n
    value, low, high = wilson(p_hat, n)
    assert 0 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1
    for p in (low, high):
        if 1e-9 < p < 1 - 1e-9:
            assert abs(p_hat - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-4, abs=1e-9)


def test_wilson_at_the_sizes_of_the_field():
    rate = wilson(0.75, 512)
    assert (rate.high - rate.low) / 2 == pytest.approx(0.037, abs=0.001)


def test_undecided_images_widen_upwards_only():
    plain, wide = wilson(0.5, 100), wilson(0.5, 100, upper_value=0.7)
    assert wide.low == plain.low
    assert wide.high == wilson(0.7, 100).high


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mcnemar_is_the_binomial_sign_test(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    expected = min(1.0, 2 * tail) if b != c else 1.0
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (b, c)
    assert test.p_value == pytest.approx(expected)
    assert test.difference == pytest.approx(first.mean() - second.mean())
