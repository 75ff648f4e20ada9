"""The definitions of the figures, on records written by hand."""

import pandas as pd
import pytest

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
        }
        for r, (c, a) in enumerate(zip(clean, adversarial, strict=True))
    ]


def summary(*groups, labels=("a", "b")):
    records = pd.DataFrame([row for group in groups for row in group])
    return _model("m", {}, records, list(labels))


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
