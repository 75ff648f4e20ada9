"""What speaks against gradients, from records written by hand."""

import itertools

import pandas as pd
import pytest

from rdc_bench.results.schema import AttackEntry
from rdc_bench.results.trust import TOLERANCE, doubts, half_followed, path_doubts, standing, witnessed

PGD = AttackEntry(name="pgd", label="pgd", origin="here", gradient="white-box", options={})
WITNESS = AttackEntry(name="w", label="w", origin="here", gradient="black-box", options={}, witness=True)


def row(attack, index, adversarial=None, *, repeat=0, clean=1, error=None, rose=None, status="ok", gradients=None):
    return {
        "attack": attack,
        "index": index,
        "repeat": repeat,
        "label": 1,
        "clean_prediction": clean,
        "adversarial_prediction": adversarial,
        "status": status,
        "gradients": gradients,
        "slope_error": error,
        "rose": rose,
    }


def clean(n):
    return [row("clean", i) for i in range(n)]


def table(*groups):
    return pd.DataFrame(list(itertools.chain(*groups)))


@pytest.mark.parametrize(
    ("wrong", "of", "doubted"), [(0, 12, False), (2, 12, False), (5, 12, False), (7, 12, True), (12, 12, True)]
)
def test_gradients_are_doubted_when_many_promises_are_broken(wrong, of, doubted):
    errors = [TOLERANCE + 0.1] * wrong + [TOLERANCE - 0.1] * (of - wrong)
    attacked = [row("pgd", i, 1, error=error) for i, error in enumerate(errors)] + [row("pgd", 50, 1)]
    found = path_doubts(table(clean(of), attacked), [PGD])
    assert bool(found) == doubted
    if doubted:
        assert f"pgd: the loss does not change as the gradient promises ({wrong} of {of} images)" in found


@pytest.mark.parametrize(("still", "doubted"), [(0, False), (4, False), (10, True), (20, True)])
def test_gradients_are_doubted_when_the_loss_seldom_rises(still, doubted):
    attacked = [row("pgd", i, 1, rose=i >= still) for i in range(20)]
    assert bool(path_doubts(table(clean(20), attacked), [PGD])) == doubted


def test_records_from_before_the_checks_raise_no_doubt():
    assert doubts(table(clean(4), [row("pgd", i, 1) for i in range(4)]), [PGD]) == ()


@pytest.mark.parametrize(
    ("broke", "tried", "doubted"),
    [(0, 8, False), (1, 8, False), (3, 8, False), (4, 8, True), (8, 8, True), (2, 24, False), (8, 24, True), (15, 200, False)],
)
def test_a_witness_speaks_against_gradients_when_it_breaks_more_than_chance(broke, tried, doubted):
    attacked = [row("pgd", i, 1) for i in range(tried)]
    shown = [row("w", i, 2 if i < broke else 1) for i in range(tried)]
    records = table(clean(tried), attacked, shown)
    assert witnessed(records, [PGD, WITNESS], WITNESS) == (tried, tried, broke)
    assert bool(doubts(records, [PGD, WITNESS])) == doubted


def test_an_image_stands_while_most_draws_are_right_under_every_attack_that_did_not_fail():
    records = table(
        [row("clean", i, repeat=r, clean=2 if i == 4 else 1) for i in range(5) for r in range(3)],
        [row("a", i, 2 if r < i else 1, repeat=r) for i in range(4) for r in range(3)],
        [row("b", 0, None, repeat=r, status="failed") for r in range(3)],
        [row("a", 4, 1, clean=2, repeat=r) for r in range(3)],
    )
    assert standing(records) == {0, 1}
    assert standing(records, ["b"]) == {0, 1, 2, 3}


def test_gradients_that_could_be_followed_in_part_matter_where_an_image_stands():
    rows = table([row("a", 0, 1, gradients="partly"), row("a", 1, 2, gradients="partly"), row("a", 2, 1, gradients="ok")])
    assert half_followed(rows) == {0}
