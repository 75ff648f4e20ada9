from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor


def weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random values for every parameter, drawn in the order of their names, large enough that no branch vanishes.

    NumPy's legacy generator, whose stream never changes. Smoothing filters keep their values.
    """
    random = np.random.RandomState(0)
    filled = {}
    for name, value in sorted(state.items()):
        if name.endswith("resample_filter"):
            filled[name] = value
            continue
        drawn = random.standard_normal(tuple(value.shape))
        fan_in = value[0].numel() if value.ndim > 1 else 16
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        filled[name] = torch.from_numpy(centre + drawn / np.sqrt(fan_in)).float()
    return filled


@pytest.fixture
def random_weights() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The recipe of the weights behind the stored outputs in ``data/``."""
    return weights
