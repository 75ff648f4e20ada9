from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdc_bench.attacks import corruptions
from rdc_bench.randomness import generator
from rdc_bench.threats import CorruptionsThreat
from rdc_bench.threats.corruptions import KINDS


class Sum(nn.Module):
    """Class 1 for images whose first pixel is large."""

    stochastic = True  # no early end

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([1 - 2 * x[:, 0, 0, 0], 2 * x[:, 0, 0, 0] - 1], dim=1)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], Tensor]:
    """Corrupted versions at random, instead of the library's."""
    made: dict[tuple[str, int], Tensor] = {}

    def corrupt(x: Tensor, kind: str, severity: int, draw: int) -> Tensor:
        assert severity == 3
        made[kind, draw] = torch.rand(x.shape, generator=generator(kind, draw))
        return made[kind, draw]

    monkeypatch.setattr(corruptions, "corrupt", corrupt)
    return made


@pytest.mark.parametrize("draws", [1, 4])
def test_the_worst_of_all_kinds_and_draws(draws: int, versions: dict[tuple[str, int], Tensor], attacked: Any) -> None:
    x = torch.zeros(3, 1, 5, 5)
    found = attacked("corruptions", Sum(), x, torch.tensor([0, 0, 1]), CorruptionsThreat(3), draws=draws)
    assert set(versions) == {(kind, draw) for kind in KINDS for draw in range(draws)}
    every = torch.stack(list(versions.values()))
    first = every[:, :, 0, 0, 0]
    assert torch.equal(found, torch.stack([every[first[:, i].argmax(), i] for i in (0, 1)] + [every[first[:, 2].argmin(), 2]]))
