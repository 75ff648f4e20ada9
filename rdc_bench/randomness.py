"""Keyed draws, as plugins import them: the public names of :mod:`rdc_bench.core.randomness`."""

from __future__ import annotations

from rdc_bench.core.randomness import Key, common_draws, draws_for, generator, normal, only_row, row_keys, seed_of, uniform

__all__ = ["Key", "common_draws", "draws_for", "generator", "normal", "only_row", "row_keys", "seed_of", "uniform"]
