"""The definitions of the figures, on records written by hand."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdc_bench.results.schema import AttackEntry
from rdc_bench.results.summary import _model


def rows(attack, index, label, clean, adversarial, status="ok"):
    return [
        {
            "attack": attack,
            "index": index,
            "repeat": r,
            "label": label,
            "clean_prediction": c,
            "adversarial_prediction": a,
            "status": status,
            "nfe": 1.0,
            "seconds": 0.1,
            "gradients": None,
            "slope_error": None,
            "rose": None,
        }
        for r, (c, a) in enumerate(zip(clean, adversarial, strict=True))
    ]


def summary(*groups, labels=("a", "b")):
    records = pd.DataFrame([row for group in groups for row in group])
    return _model("m", {}, records, [entry(label) for label in labels])


def entry(label, witness=False):
    return AttackEntry(name=label, label=label, origin="here", gradient="white-box", options={}, witness=witness)


CLEAN = [rows("clean", i, 1, (1, 1), (None, None)) for i in range(4)]


def test_average_worst_and_union():
    a = [
        rows("a", 0, 1, (1, 1), (1, 1)),
        rows("a", 1, 1, (1, 1), (1, 2)),
        rows("a", 2, 1, (1, 1), (2, 2)),
        rows("a", 3, 1, (1, 1), (1, 1)),
    ]
    b = [rows("b", i, 1, (1, 1), (1, 1)) for i in range(3)] + [rows("b", 3, 1, (1, 1), (2, 1))]
    s = summary(*CLEAN, *a, *b)
    assert s.clean.value == 1.0
    assert s.attacks["a"].avg.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert s.attacks["a"].worst.value == pytest.approx(2 / 4)
    assert s.avg.value == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert s.worst.value == pytest.approx(1 / 4)
    assert s.robust_images.tolist() == [True, False, False, False]
    assert s.undecided == 0


def test_an_image_wrong_when_clean_is_not_robust_whatever_the_attack_did():
    clean = [rows("clean", 0, 1, (1, 2), (None, None))]
    s = summary(*clean, rows("a", 0, 1, (1, 2), (1, 1)), labels=("a",))
    assert s.clean.value == 0.5
    assert s.avg.value == 0.5
    assert s.worst.value == 0.0


def test_a_failed_attack_leaves_an_image_undecided_unless_another_breaks_it():
    a = [rows("a", i, 1, (1, 1), (None, None), "failed") for i in range(4)]
    b = [rows("b", i, 1, (1, 1), (2, 2) if i == 0 else (1, 1)) for i in range(4)]
    s = summary(*CLEAN, *a, *b)
    assert s.undecided == 3
    assert s.worst.value == 0.0
    assert s.avg.value == 0.0
    assert s.worst.high > 0.75
    assert s.status == "incomplete"
    assert s.attacks["a"].status == "failed"
    assert s.attacks["a"].failed == 4
    assert s.attacks["b"].worst.value == 0.75


def test_the_worst_status_of_an_attack_is_shown():
    a = [rows("a", i, 1, (1, 1), (1, 1)) for i in range(3)] + [rows("a", 3, 1, (1, 1), (None, None), "invalid")]
    s = summary(*CLEAN, *a, labels=("a",))
    assert s.attacks["a"].status == "invalid"
    assert s.undecided == 1
    assert s.worst.value == 0.75


@pytest.mark.parametrize(
    ("votes", "right"),
    [
        ((1, 1, 1), True),
        ((1, 1, 2), True),
        ((1, 2, 2), False),
        ((1, 2, 3, 1), True),  # a plurality is enough
        ((1, 1, 2, 2), False),  # a tie does not favour the defence
        ((1, 2, 3), False),
        ((1, -1, -1), False),  # logits that are not finite
        ((2, 2, 2), False),
    ],
)
def test_the_vote_of_the_repeats(votes, right):
    n = len(votes)
    clean = rows("clean", 0, 1, (1,) * n, (None,) * n)
    s = summary(clean, rows("a", 0, 1, (1,) * n, votes), labels=("a",))
    assert s.majority.value == s.attacks["a"].majority.value == float(right)
    wrong_when_clean = rows("a", 0, 1, votes, (1,) * n)
    assert summary(clean, wrong_when_clean, labels=("a",)).majority.value == float(right)


@given(st.lists(st.lists(st.integers(-1, 3), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_vote_agrees_with_counting_and_lies_above_the_worst_case(adversarial):
    clean = [rows("clean", i, 1, (1,) * 5, (None,) * 5) for i in range(len(adversarial))]
    s = summary(*clean, *(rows("a", i, 1, (1,) * 5, found) for i, found in enumerate(adversarial)), labels=("a",))
    ranked = [Counter(found).most_common() for found in adversarial]
    right = [r[0][0] == 1 and (len(r) == 1 or r[0][1] > r[1][1]) for r in ranked]
    assert s.majority.value == pytest.approx(sum(right) / len(right))
    assert s.worst.value <= s.majority.value


def test_the_vote_is_taken_attack_by_attack_and_the_worst_attack_counts():
    a = [rows("a", i, 1, (1, 1, 1), (1, 1, 2)) for i in range(2)]
    b = [rows("b", 0, 1, (1, 1, 1), (1, 2, 2)), rows("b", 1, 1, (1, 1, 1), (2, 1, 1))]
    s = summary(*(rows("clean", i, 1, (1, 1, 1), (None,) * 3) for i in range(2)), *a, *b)
    assert [s.attacks[name].majority.value for name in "ab"] == [1.0, 0.5]
    assert (s.majority.value, s.worst.value) == (0.5, 0.0)


def test_undecided_images_make_every_figure_an_interval_that_counts_them_as_broken():
    a = [rows("a", i, 1, (1, 1), (None, None), "failed") for i in range(4)]
    b = [rows("b", 0, 1, (1, 1), (2, 2)), *(rows("b", i, 1, (1, 1), (1, 2)) for i in (1, 2)), rows("b", 3, 1, (1, 1), (1, 1))]
    s = summary(*CLEAN, *a, *b)
    assert (s.avg.value, s.avg.upper) == (0.0, 0.5)  # attack b has broken images 1 and 2 in half of the draws only
    assert (s.majority.value, s.majority.upper) == (0.0, 0.25)
    assert (s.worst.value, s.worst.upper) == (0.0, 0.25)
    assert s.undecided == 1
    assert s.attacks["b"].avg.upper is None
    assert s.avg.percent.startswith("0.0–50.0 [0.0, ")
    assert s.as_json()["robust"]["majority"]["upper"] == 0.25
    assert "upper" not in s.as_json()["attacks"]["b"]["majority"]


def test_a_witness_counts_where_it_was_shown_an_image_and_leaves_the_others_as_they_were():
    a = [rows("a", i, 1, (1, 1), (1, 1) if i else (2, 2)) for i in range(4)]
    shown = [rows("w", 1, 1, (1, 1), (2, 2)), rows("w", 3, 1, (1, 1), (1, 2)), rows("w", 2, 1, (1, 1), (None, None), "failed")]
    records = pd.DataFrame([row for group in (*CLEAN, *a, *shown) for row in group])
    s = _model("m", {}, records, [entry("a"), entry("w", witness=True)])
    assert s.attacks["w"].witnessed == (3, 3, 2)  # half of the draws is no majority: the image counts as broken
    assert s.avg.value == pytest.approx((0 + 0 + 1 + 0.5) / 4)
    assert s.robust_images.tolist() == [False, False, True, False]
    assert s.undecided == 0  # what the witness failed on, the other attack has judged
    assert s.status == "ok"
    without = _model("m", {}, records[records["attack"] != "w"], [entry("a"), entry("w", witness=True)])
    assert list(without.attacks) == ["a"]
    assert without.avg.value == pytest.approx(3 / 4)
