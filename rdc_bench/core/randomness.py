"""Random numbers that depend on what they are for, and on nothing else.

Every draw comes from a generator keyed by what it belongs to: (seed, image, attack, repeat, step). The result for one image
then does not depend on batch size, order, sharding or engine, and no model or attack can reset the draws of another, because
none of them touches torch's global generator.

A randomised model does not know which images it is shown. The evaluation tells it through :func:`draws_for`; outside that
context every model draws from fresh entropy.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

Key = tuple[int | str, ...]


def seed_of(*key: int | str) -> int:
    """A 63-bit seed that is a hash of ``key``; the same on every machine and Python version."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by ``key``."""
    return torch.Generator().manual_seed(seed_of(*key))


def normal(keys: Sequence[Key], shape: Sequence[int]) -> Tensor:
    """Standard normal noise (len(keys), *shape), row ``i`` a function of ``keys[i]`` alone.

    Drawn on the CPU, so that every device sees the same numbers.
    """
    return _drawn(keys, shape, Tensor.normal_)


def uniform(keys: Sequence[Key]) -> Tensor:
    """Numbers uniform in [0, 1), one for each key, (len(keys),)."""
    return _drawn(keys, (), Tensor.uniform_)


def _drawn(keys: Sequence[Key], shape: Sequence[int], fill: Callable[..., Tensor]) -> Tensor:
    out = torch.empty(len(keys), *shape)
    g = torch.Generator()
    for row, key in zip(out, keys, strict=True):
        fill(row, generator=g.manual_seed(seed_of(*key)))
    return out


@dataclass
class _Draws:
    """The images announced, and for each the number of the model's next call on it."""

    rows: Sequence[Key]
    calls: Sequence[Iterator[int]]


_draws: ContextVar[_Draws | None] = ContextVar("rdc_bench_draws", default=None)


@contextlib.contextmanager
def draws_for(rows: Sequence[Key]) -> Iterator[None]:
    """Key the randomness of every model called inside: the images of a batch belong to ``rows``, in order.

    A batch of ``r · len(rows)`` images holds ``r`` independent draws of the same images, one whole copy after the other
    (expectation over transformation). Successive calls draw anew.
    """
    with _announced(_Draws(list(rows), [itertools.count() for _ in rows])):
        yield


@contextlib.contextmanager
def only_row(index: int) -> Iterator[None]:
    """Inside, the model is called on image ``index`` of the surrounding :func:`draws_for` alone.

    For attacks that cannot keep a batch together. Each image counts its own calls, so its draws do not depend on how often the
    others were shown. Without an announcement around it, this does nothing.
    """
    draws = _draws.get()
    with _announced(draws and _Draws([draws.rows[index]], [draws.calls[index]])):
        yield


@contextlib.contextmanager
def common_draws(batch: int) -> Iterator[None]:
    """Inside, the model sees the same draws at every call (common random numbers): its noise is fixed for the time being.

    They are those of the next call within the surrounding :func:`draws_for`; copies of a batch still differ from one another.
    Without an announcement around it, they are fresh entropy for ``batch`` images.
    """
    draws = _draws.get()
    rows = draws.rows if draws else row_keys(batch)
    calls = [itertools.repeat(next(calls)) for calls in draws.calls] if draws else [itertools.repeat(0)] * batch
    with _announced(_Draws(rows, calls)):
        yield


@contextlib.contextmanager
def _announced(draws: _Draws | None) -> Iterator[None]:
    token = _draws.set(draws)
    try:
        yield
    finally:
        _draws.reset(token)


def row_keys(batch: int) -> list[Key]:
    """Keys for one fresh random draw for each of ``batch`` images, as the surrounding :func:`draws_for` says.

    Raises:
        ValueError: the batch is no multiple of the images announced, so its rows cannot be told apart.
    """
    draws = _draws.get()
    if draws is None:
        entropy = int.from_bytes(os.urandom(8), "big")
        return [(entropy, i) for i in range(batch)]
    n = len(draws.rows)
    if batch % n:
        raise ValueError(f"a randomised model was called with {batch} images, no multiple of the {n} that it was told of")
    calls = [next(calls) for calls in draws.calls]
    return [(*draws.rows[i % n], calls[i % n], i // n) for i in range(batch)]
