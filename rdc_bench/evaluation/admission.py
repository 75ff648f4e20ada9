"""Admitting a model before it is attacked: is it what an evaluation takes it for?

An evaluation takes a model for a function from an image to logits, random or not, whose gradient is that of the function. A few
clean images show where that is not so: shown together, alone, again, as copies in one batch, with gradients asked for and
without. Then the model is mended (:mod:`rdc_bench.evaluation.mending`), or refused before anything is computed.

Draws are told from effects of the batch by what is held fixed. Under the same keys and the same seeds of the global generators,
at the same place of a batch of the same size, an image sees the same draws. If its logits then change with its neighbours, they
depend on the batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rdc_bench.attacks.agreement import cosines, needed
from rdc_bench.attacks.losses import margin
from rdc_bench.errors import UserError, first_line
from rdc_bench.evaluation.mending import Mended, mended, read, where
from rdc_bench.global_generators import preserved
from rdc_bench.precision import full_float32
from rdc_bench.randomness import Key, draws_for, seed_of
from rdc_bench.results.admission import Admission, Draws, Gradient, Output

#: Images that a model is shown. All calls together cost no more than 32 images do, one with its gradient counted as two.
IMAGES = 4
#: Largest change of a logit, as a share of the spread of an image's logits, that passes for rounding; and in half precision.
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
#: The same between batches of different sizes, which take different kernels.
OTHER_SIZE = 1e-2
#: Draws follow their keys if the same key changes the logits by less than this share of what another key does.
FOLLOWS = 0.1
#: More draws a step than this cost more than they find.
CAP = 16
#: How well the mean margin over the draws of a step should be known, as a share of it: attacks choose points by it.
WANTED_NOISE = 0.2


class Admitted(NamedTuple):
    """A model fit for evaluation, and what was found out about it."""

    model: nn.Module
    admission: Admission


@full_float32()
def admit(
    model: nn.Module, images: Tensor, labels: Tensor, *, name: str, num_classes: int, device: torch.device, seed: int
) -> Admitted:
    """The model, mended where it has to be.

    Args:
        images: clean ones (B, C, H, W) in [0, 1], at least one; the first :data:`IMAGES` are used. labels: (B,).
        name: of the model, for messages. num_classes: what its card declares. seed: every draw is keyed by it.
    Raises: ``UserError`` for what cannot be mended: no logits, another number of them, a forward pass that raises, logits that
        depend on the other images of a batch or on its size.
    """
    training = any(module.training for module in model.modules())
    model.to(device).eval()
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise UserError(f"model {name!r} gets weights at its first call (lazy modules): show it an image where it is made")
    chosen = torch.arange(IMAGES) % len(images)  # there may be fewer
    show = _Show(model, name, num_classes, seed)
    x, y = images[chosen].to(device), labels[chosen].to(device)
    draws, logits = _draws(show, x, distinct=len(images) > 1)
    gradients = _gradients(show, x, y, draws, logits)
    random = draws.draws != "none"
    admission = Admission(
        **draws._asdict(),
        **gradients._asdict(),
        output=show.output,
        container=show.container,
        dtype=_name(show.dtype),
        images_as=_name(show.images_as),
        columns=num_classes,
        writes_input=show.writes,
        training_mode=any(module.training for module in model.modules()),
        finite=show.finite,
        nonzero_gradients=gradients.gradient == "nonzero",
        deterministic=not random and not draws.declared,
        no_optimization_loop=not show.loops,
        cost=show.cost,
        mended=[],
    )
    said = [*(["was in training mode: put into eval mode"] if training else []), *_mended(admission)]
    return Admitted(mended(model, admission), admission.model_copy(update={"mended": said}))


class _Show:
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
                f"returns {_a(type(answer).__name__)}, not logits: return a tensor (B, K), a tuple or list that begins with "
                "one, or what has one as 'logits'"
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

    def gradient(self, x: Tensor, y: Tensor, rivals: Tensor, keys: Sequence[Key], seed: int, through: nn.Module) -> _Looked:
        """Logits, asked for with their gradient, and the gradient of ``f_rival − f_y``; None for what cannot be had."""
        leaf = x.clone().requires_grad_(True)
        self.cost += len(x)
        with torch.enable_grad():
            try:
                logits = self._checked(x, self._answer(leaf, keys, seed, through, copy=False), through)
            except UserError:
                raise
            except Exception:
                return _Looked(None, None)
            try:
                (gradient,) = torch.autograd.grad(_difference(logits, rivals, y).sum(), leaf, allow_unused=True)
            except Exception:
                gradient = None
        return _Looked(logits.detach(), gradient)

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
            raise self.error(f"returns {_name(logits.dtype)}, as classes are, not logits: return what they are chosen by")
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
        return self.error(f"raises {type(error).__name__} on clean images ({shape}, {_name(x.dtype)}): {first_line(error)}")


class _Looked(NamedTuple):
    logits: Tensor | None
    gradient: Tensor | None


class _DrawFacts(NamedTuple):
    """See :class:`rdc_bench.results.admission.Admission`."""

    declared: bool
    calls_agree: bool
    repeatable: bool
    copies_agree: bool
    batch_independent: bool
    draws: Draws
    by_rows: bool


def _draws(show: _Show, x: Tensor, distinct: bool) -> tuple[_DrawFacts, Tensor]:
    """What the logits of an image depend on besides the image, and the logits (B, K) of all.

    Args: distinct: the images of ``x`` are not all the same.
    """
    together = show.first(x)
    # An image alone: under the draws that it had among the others, and under other ones; global generators start elsewhere.
    own, alone = show.keys(0)[-1:], x[-1:]
    by_itself = show.logits(alone, own, 1)
    again = show.logits(alone, show.keys(1)[-1:], 2)
    copies = show.logits(x[:1].repeat(IMAGES, 1, 1, 1), show.keys(0)[:1], 0)  # the first under the draws that it had

    varies = _change(by_itself, again)
    neighbours = _change(together[:1], copies[:1])
    size = _change(together[-1:], by_itself)
    rounding = show.tolerance
    calls_agree = varies <= rounding
    copies_agree = _change(copies[:1].expand_as(copies), copies) <= rounding
    declared = bool(getattr(show.model, "stochastic", False))

    # From here on, draws apart: what the same key changes.
    follows = max(rounding, FOLLOWS * varies)
    repeatable = neighbours <= follows or _change(by_itself, show.logits(alone, own, 1)) <= rounding
    if repeatable and neighbours > follows:
        raise show.error(
            "gives an image other logits among other images: its answer depends on the batch (batch statistics, even in eval "
            "mode?), and must not"
        )
    if calls_agree and copies_agree and size > OTHER_SIZE:
        raise show.error(f"gives an image other logits alone than in a batch of {len(x)}, and must not")
    if calls_agree and not copies_agree and distinct and _change(together, copies) <= rounding:
        raise show.error("gives a batch the logits of an earlier one: it answers from memory, not from the images")
    keyed = size <= max(follows, OTHER_SIZE * calls_agree)
    facts = _DrawFacts(
        declared=declared,
        calls_agree=calls_agree,
        repeatable=repeatable,
        copies_agree=copies_agree,
        batch_independent=keyed,
        draws="none" if calls_agree else "batch" if copies_agree else "image",
        by_rows=not copies_agree if calls_agree else copies_agree or (repeatable and not keyed),
    )
    return facts, together


class _GradientFacts(NamedTuple):
    """See :class:`rdc_bench.results.admission.Admission`."""

    agrees_with_gradient: bool | None
    gradient: Gradient
    agreement: float | None
    noise: float | None
    needed_draws: int


def _gradients(show: _Show, x: Tensor, y: Tensor, draws: _DrawFacts, together: Tensor) -> _GradientFacts:
    """Whether gradients belong to the function that is judged, and how far those of two draws agree."""
    random = not draws.calls_agree
    view = Mended(
        show.model,
        output=show.output,
        images_as=show.images_as,
        copies=show.writes,
        by_rows=draws.by_rows,
        stochastic=random,
    ).eval()
    # Which class is the rival may change with the draw. That is noise of values, told apart from noise of gradients.
    rivals = together.scatter(1, y[:, None], -torch.inf).argmax(dim=1)
    judged = show.logits(x[:2], show.keys(0)[:2], 0, through=view) if draws.by_rows else together
    first = show.gradient(x, y, rivals, show.keys(0), 0, view)
    agrees: bool | None = None
    if first.logits is not None and draws.repeatable:
        agrees = _change(judged, first.logits[: len(judged)]) <= show.tolerance
    second = show.gradient(x, y, rivals, show.keys(1), 2, view) if random or agrees is False else None
    agreement = _agreement(first.gradient, second.gradient) if second else None
    noise = _noise(first.logits, second.logits, y) if second else None
    return _GradientFacts(agrees, _kind(first.gradient), agreement, noise, _needed(agreement, noise))


def _difference(logits: Tensor, rivals: Tensor, y: Tensor) -> Tensor:
    """``f_rival − f_y``, (B,): the margin, where the rival is the nearest."""
    return (logits.gather(1, rivals[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def _kind(gradient: Tensor | None) -> Gradient:
    if gradient is None:
        return "none"
    if not torch.isfinite(gradient).all():
        return "not finite"
    return "nonzero" if gradient.any() else "zero"


def _agreement(first: Tensor | None, second: Tensor | None) -> float | None:
    """Mean cosine over the images that have a gradient in both draws; None where no image has."""
    if first is None or second is None:
        return None
    norms = torch.stack([g.double().flatten(1).norm(dim=1) for g in (first, second)]).amin(dim=0)
    there = (norms > 0) & norms.isfinite()
    return float(cosines([first[there], second[there]]).mean()) if there.any() else None


def _noise(first: Tensor | None, second: Tensor | None, y: Tensor) -> float | None:
    """Standard deviation of the margin between draws as a share of the margin, both as root mean squares over the images."""
    if first is None or second is None:
        return None
    a, b = (margin(logits.double(), y) for logits in (first, second))
    square = float((a - b).square().sum() / 2 / ((a + b) / 2).square().sum())
    return math.sqrt(square) if math.isfinite(square) else None


def _needed(agreement: float | None, noise: float | None) -> int:
    """Draws that an attack should average a step, up to :data:`CAP`: for a gradient to follow and a margin to choose by.

    One where less than two would do: a few images tell either only roughly.
    """
    draws = max(needed(1.0 if agreement is None else agreement), ((noise or 0.0) / WANTED_NOISE) ** 2)
    return 1 if draws < 2 else math.ceil(min(CAP, draws))


def _change(a: Tensor, b: Tensor) -> float:
    """Largest change of a logit from ``a`` to ``b`` (B, K), as a share of the spread of an image's logits; NaN equals NaN."""
    a, b = a.detach().double(), b.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    spread = (a.nan_to_num().amax(dim=1) - a.nan_to_num().amin(dim=1)).clamp_min(1e-12)
    difference = (a - b).abs().nan_to_num(nan=math.inf).masked_fill(same, 0.0)
    return float((difference.amax(dim=1) / spread).max())


def _mended(admission: Admission) -> list[str]:
    """What is done about a model, in words."""
    kind = _a(admission.container)
    said = {
        "tensor": [],
        "first": [f"returns {kind}: its first element is taken for the logits"],
        "key": [f"returns {kind}: its 'logits' are taken"],
        "attribute": [f"returns {kind}: its logits are taken"],
    }[admission.output]
    if admission.images_as != "float32":
        said.append(f"takes images as {admission.images_as}: they are converted")
    if admission.dtype != "float32":
        said.append(f"gives logits as {admission.dtype}: they are converted to float32")
    if admission.writes_input:
        said.append("writes into its input: it gets copies")
    if admission.stochastic and not admission.declared:
        said.append("draws at random without saying `stochastic = True`: treated as randomised")
    if admission.by_rows:
        why = {
            "none": "treats images by their place in the batch",
            "image": "draws from generators that are not keyed by image",
            "batch": "draws once a batch",
        }[admission.draws]
        said.append(f"{why}: shown one image at a time")
    return said


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
