"""Whole training runs: build, fit, measure on the validation split, write weights and card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rdc_bench.data import Dataset, load_dataset
from rdc_bench.networks import network_class
from rdc_bench.diffusion.precondition import EDMPrecond
from rdc_bench.training.loop import Schedule, Trained, fit

Progress = Callable[[int, int, float], None]


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module with initial weights that depend on ``seed`` only, in the fast memory layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(memory_format=torch.channels_last)
