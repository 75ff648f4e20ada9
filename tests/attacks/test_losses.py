from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rdc_bench.attacks.losses import cross_entropy, dlr, dlr_targeted, margin

LOGITS = torch.tensor([[4.0, 1.0, 3.0, 0.0, -1.0]])


def test_values_by_hand() -> None:
    y = torch.tensor([0])
    assert margin(LOGITS, y) == -1
    assert dlr(LOGITS, y) == pytest.approx(-1 / 3)
    assert dlr_targeted(LOGITS, y, torch.tensor([3])) == pytest.approx(-4 / (4 - 0.5))
    assert cross_entropy(LOGITS, y) == pytest.approx(-float(F.log_softmax(LOGITS, dim=1)[0, 0]))


def test_margin_is_positive_exactly_when_the_label_is_not_the_prediction() -> None:
    logits = torch.randn(100, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(100) % 10
    assert torch.equal(margin(logits, y) > 0, logits.argmax(dim=1) != y)
    assert torch.equal(dlr(logits, y) > 0, logits.argmax(dim=1) != y)


def test_dlr_ignores_shift_and_scale_and_is_capped() -> None:
    y = torch.tensor([2])
    torch.testing.assert_close(dlr(LOGITS, y), dlr(100 * LOGITS - 7, y))
    assert dlr(LOGITS, torch.tensor([4])) == 1
