"""What keeps another library's attack and the attacked model apart.

Libraries seed and draw from the global generators of Python, NumPy and torch, switch modules to training mode, leave gradients
in parameters and print. None of it may reach the model, the evaluation, or whatever runs next.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rdc_bench.core.global_generators import preserved, restore, state


@contextlib.contextmanager
def isolated(model: nn.Module, x: Tensor, seed: int) -> Iterator[nn.Module]:
    """The model as a library may see it; inside, the global generators start from ``seed``, and afterwards they are as before.

    Whatever the library prints goes to stderr.

    Args: x: the images, for their device and precision. seed: in [0, 2³²).
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    enclosed = _Enclosed(model, x.device, x.dtype)
    try:
        with preserved(x.device, seed), torch.enable_grad(), contextlib.redirect_stdout(sys.stderr):
            yield enclosed
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class _Enclosed(nn.Module):
    """Calls the model and shows nothing else of it.

    The model is no submodule, so that a library can neither change its mode nor read its attributes; a parameter of no use
    tells libraries the device. Images reach the model in the precision in which it is evaluated. A model that draws from the
    global generators has streams of its own here, which go on from call to call whatever the library seeds.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.marker = nn.Parameter(torch.zeros((), device=device, dtype=dtype), requires_grad=False)
        self._hidden = (model,)
        self._device = device
        self._model_state = state(device)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        library_state = state(self._device)
        restore(self._model_state, self._device)
        try:
            return self._hidden[0](x.to(self.marker))
        finally:
            self._model_state = state(self._device)
            restore(library_state, self._device)
