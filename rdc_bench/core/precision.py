"""Float32 means float32, on every device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Inside, GPUs multiply float32 numbers as they are, in convolutions and in products of matrices.

    By default torch lets cuDNN round the factors of a convolution to TF32, which keeps 10 of the 23 bits of the mantissa
    (https://docs.pytorch.org/docs/stable/notes/cuda.html). Near a decision boundary, where adversarial images lie, a GPU would
    then see other classes than a CPU, and a record could not be verified on another machine.
    """
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
