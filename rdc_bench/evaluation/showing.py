"""Showing a model a few images, and noting how it behaves: what it returns, changes and takes gradients of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from rdc_bench.core.errors import UserError, first_line
from rdc_bench.core.global_generators import preserved
from rdc_bench.core.randomness import Key, draws_for, seed_of
from rdc_bench.evaluation.mending import read, where
from rdc_bench.results.admission import Output

#: Images that a model is shown. All calls together cost no more than 32 images do, one with its gradient counted as two.
IMAGES = 4
#: Largest change of a logit, as a share of the spread of an image's logits, that passes for rounding; and in half precision.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2


class Show:
    """Shows a model images, and notes how it behaves."""

    def __init__(self, model: nn.Module, name: str, num_classes: int, seed: int) -> None:
        self.model, self.name, self.num_classes, self.seed = model, name, num_classes, seed
        self.cost = 0
        self.loops = self.writes = False
        self.finite = True
        self.output: Output = "tensor"
        self.container = ""
        self.images_as = self.dtype = torch.float32

    @property
    def tolerance(self) -> float:
        """Largest change that passes for rounding."""
        coarse = {self.dtype, self.images_as} & {torch.float16, torch.bfloat16}
        return HALF_TOLERANCE if coarse else TOLERANCE

    def keys(self, draw: int) -> list[Key]:
        """Keys of a draw, one per image."""
        return [(self.seed, i, "admission", draw) for i in range(IMAGES)]

    def first(self, x: Tensor) -> Tensor:
        """Logits (B, K) at the first call, which shows how they are had; of images in the type of the weights, if need be."""
        try:
            answer = self._answer(x, self.keys(0), 0)
        except Exception as error:  # somebody else's code may raise anything
            types = {t.dtype for t in (*self.model.parameters(), *self.model.buffers()) if t.is_floating_point()}
            if len(types) != 1 or types == {torch.float32}:
                raise self._raised(x, error) from error
            (self.images_as,) = types
            try:
                answer = self._answer(x, self.keys(0), 0)
            except Exception:
                raise self._raised(x, error) from error
        output = where(answer)
        if output is None:
            raise self.error(
                f"returns {with_article(type(answer).__name__)}, not logits: return a tensor (B, K), a tuple or list that "
                "begins with one, or what has one as 'logits'"
            )
        self.output, self.container = output, type(answer).__name__
        self.dtype = read(answer, output).dtype
        return self._checked(x, answer)

    def logits(self, x: Tensor, keys: Sequence[Key], seed: int, *, through: nn.Module | None = None) -> Tensor:
        """Logits (B, K) under the draws that ``keys`` announce, with global generators that start from ``seed``.

        Args: through: the model as it is mended. By default it is called as it came.
        """
        try:
            answer = self._answer(x, keys, seed, through)
        except Exception as error:
            raise self._raised(x, error) from error
        return self._checked(x, answer, through)

    def gradient(self, x: Tensor, y: Tensor, rivals: Tensor, keys: Sequence[Key], seed: int, through: nn.Module) -> Looked:
        """Logits, asked for with their gradient, and the gradient of ``f_rival − f_y``; None for what cannot be had."""
        leaf = x.clone().requires_grad_(True)
        self.cost += len(x)
        with torch.enable_grad():
            try:
                logits = self._checked(x, self._answer(leaf, keys, seed, through, copy=False), through)
            except UserError:
                raise
            except Exception:
                return Looked(None, None)
            try:
                (gradient,) = torch.autograd.grad(_difference(logits, rivals, y).sum(), leaf, allow_unused=True)
            except Exception:
                gradient = None
        return Looked(logits.detach(), gradient)

    def error(self, what: str) -> UserError:
        """Of this model."""
        return UserError(f"model {self.name!r} {what}")

    def _answer(self, x: Tensor, keys: Sequence[Key], seed: int, through: nn.Module | None = None, *, copy: bool = True) -> Any:
        """What the model returns for ``x``."""
        self.cost += len(x)
        shown = x.to(self.images_as, copy=copy) if through is None else x
        before = shown.detach().clone()
        drawn = preserved(x.device, seed_of(self.seed, "admission", seed, "global"))
        with torch.set_grad_enabled(not copy), drawn, draws_for(keys), self._watched():
            answer = (through or self.model)(shown)
        self.writes |= not torch.equal(shown, before)
        return answer

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Notice gradients that are taken inside: all ways to take one lead to this function of autograd."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.loops = True
            return engine(*args, **kwargs)

        engine: Any = getattr(torch.autograd, "_engine_run_backward", None)  # not public; a test says that it is there
        with mock.patch.object(torch.autograd, "_engine_run_backward", counted, create=True):
            yield

    def _checked(self, x: Tensor, answer: Any, through: nn.Module | None = None) -> Tensor:
        """Float32 logits (B, K) from what the model returned. Raises ``UserError`` where it returned something else."""
        logits = answer if through is not None else read(answer, self.output)
        shape = tuple(logits.shape)
        if not logits.is_floating_point():
            raise self.error(f"returns {name_of(logits.dtype)}, as classes are, not logits: return what they are chosen by")
        if shape != (len(x), self.num_classes):
            binary = self.num_classes == 2 and shape in ((len(x),), (len(x), 1))
            hint = "; of a binary logit z, return (-z, z)" if binary else ""
            raise self.error(
                f"returns a tensor of shape {shape} for {len(x)} image(s); its card declares {self.num_classes} classes, whose "
                f"logits have shape ({len(x)}, {self.num_classes}){hint}"
            )
        self.finite &= bool(torch.isfinite(logits).all())
        return logits.to(torch.float32)

    def _raised(self, x: Tensor, error: Exception) -> UserError:
        shape = "×".join(map(str, x.shape))
        return self.error(f"raises {type(error).__name__} on clean images ({shape}, {name_of(x.dtype)}): {first_line(error)}")


class Looked(NamedTuple):
    """What came of asking for a gradient; None for what cannot be had."""

    logits: Tensor | None
    gradient: Tensor | None


def _difference(logits: Tensor, rivals: Tensor, y: Tensor) -> Tensor:
    """``f_rival − f_y``, (B,): the margin, where the rival is the nearest."""
    return (logits.gather(1, rivals[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def name_of(dtype: torch.dtype) -> str:
    """``float32`` and the like."""
    return str(dtype).removeprefix("torch.")


def with_article(noun: str) -> str:
    """``a tuple``, ``an int``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
