"""The random generators that Python, NumPy and torch keep for everybody, kept apart.

Nothing in this package draws from them, but attacks and models of others may, and may seed them. None of it may reach anyone
else: not the model an attack that runs on it, not the attack the model's draws, and neither of them whatever runs next.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

State = tuple[Any, ...]


def state(device: torch.device) -> State:
    """Of the generators of Python, NumPy, torch and, where it is a GPU, ``device``."""
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_gpu


def restore(saved: State, device: torch.device) -> None:
    """Make the generators go on from a :func:`state`."""
    of_python, of_numpy, of_torch, on_gpu = saved
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu, device)


@contextlib.contextmanager
def preserved(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Afterwards the generators are as before. With ``seed`` (63 bits), they start from it inside."""
    before = state(device)
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        yield
    finally:
        restore(before, device)


@contextlib.contextmanager
def model_apart(model: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Inside, ``model`` has generators of its own, which start from ``seed`` and go on from call to call.

    What its caller seeds or draws does not reach it, and what it seeds or draws does not reach its caller.
    """
    with preserved(device, seed):
        of_model = state(device)
    of_caller: list[State] = []  # one for each call that has begun: a model may call itself

    def enter(_module: nn.Module, _args: Any) -> None:
        of_caller.append(state(device))
        if len(of_caller) == 1:
            restore(of_model, device)

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        nonlocal of_model
        before = of_caller.pop()
        if not of_caller:
            of_model = state(device)
            restore(before, device)

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
