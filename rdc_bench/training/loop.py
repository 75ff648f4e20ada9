"""The one training loop: AdamW, cosine schedule, moving average of the weights, checkpoints that resume exactly.

Batches and noise are functions of (seed, step) alone, so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rdc_bench.core.errors import UserError, first_line
from rdc_bench.core.files import write_atomically
from rdc_bench.core.randomness import generator
from rdc_bench.data import Dataset

#: ``loss(model, x, y, generator) -> scalar``, x in [0, 1].
Loss = Callable[[Any, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        images: training images seen in total. batch_size: images per step. seed: of initialisation, batches and noise.
        learning_rate: peak of a cosine schedule with linear warm-up over ``warmup`` of the steps.
        weight_decay: AdamW's. ema: decay per step of the moving average of the weights, which is what is kept.
        flip: mirror half of the images. shift: move each image by up to this many pixels (edges repeated).
        precision: of products and convolutions. With ``bfloat16``, weights, their average and the optimiser stay in float32
            (mixed precision, Micikevicius et al. 2018, arXiv 1710.03740; bfloat16 needs no scaling of the loss).
    """

    images: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.02
    ema: float = 0.999
    flip: bool = False
    shift: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, self.images // self.batch_size)


@dataclass(frozen=True)
class Trained:
    """The averaged model, in eval mode, and the seconds spent training it over all resumptions."""

    model: nn.Module
    seconds: float


def fit(
    model: nn.Module,
    loss: Loss,
    data: Dataset,
    schedule: Schedule,
    *,
    checkpoint: Path,
    device: str = "cpu",
    checkpoint_seconds: float = 120.0,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Trained:
    """Minimise ``loss`` over ``data``.

    Resumes from ``checkpoint`` when it exists; the result is the same as that of an uninterrupted run.

    Args:
        progress: called with (steps done, steps in all, running loss).
    Raises: ``UserError`` for a damaged checkpoint or one of another schedule, dataset or network; ``FloatingPointError`` when
        the loss or its gradient is not finite.
    """
    model = model.to(device)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, schedule))
    parts = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    identity = {**asdict(schedule), "data": data.sha256}
    first, seconds = _resume(checkpoint, parts, identity, device)

    started = saved = time.monotonic()
    running = math.nan
    model.train()
    for step in range(first, schedule.steps):
        x, y = _batch(data, schedule, step)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
            value = loss(model, x.to(device), y.to(device), generator(schedule.seed, "loss", step))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        # Before the update, so that no checkpoint can hold weights that are not finite.
        if not (math.isfinite(value.item()) and math.isfinite(norm)):
            raise FloatingPointError(f"at step {step} the training loss is {value.item()} and its gradient's norm {norm}")
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
        running = value.item() if math.isnan(running) else 0.99 * running + 0.01 * value.item()
        progress(step + 1, schedule.steps, running)
        if time.monotonic() - saved > checkpoint_seconds or step + 1 == schedule.steps:
            saved = time.monotonic()
            _save(checkpoint, parts, identity, step + 1, seconds + saved - started)
    return Trained(average.module.eval(), seconds + time.monotonic() - started)


def _cosine(step: int, schedule: Schedule) -> float:
    warmup = max(1, int(schedule.warmup * schedule.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, schedule.steps - warmup))))


def _batch(data: Dataset, schedule: Schedule, step: int) -> tuple[Tensor, Tensor]:
    """The images of one step: without replacement within an epoch, augmented."""
    per_epoch = max(1, len(data) // schedule.batch_size)
    order = torch.randperm(len(data), generator=generator(schedule.seed, "epoch", step // per_epoch))
    start = (step % per_epoch) * schedule.batch_size
    index = order[start : start + schedule.batch_size]
    x = data.pixels[index].float() / 255
    g = generator(schedule.seed, "augment", step)
    if schedule.flip:
        mirrored = torch.rand(len(x), generator=g) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if schedule.shift:
        x = _shifted(x, schedule.shift, g)
    return x, data.labels[index]


def _shifted(x: Tensor, pixels: int, g: torch.Generator) -> Tensor:
    b, c, h, w = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * pixels + 1, (2, b), generator=g)
    rows = (top[:, None] + torch.arange(h))[:, None, :, None]
    columns = (left[:, None] + torch.arange(w))[:, None, None, :]
    return padded[torch.arange(b)[:, None, None, None], torch.arange(c)[None, :, None, None], rows, columns]


def _save(path: Path, parts: dict[str, Any], identity: dict[str, Any], step: int, seconds: float) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save({"identity": identity, "step": step, "seconds": seconds, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(path: Path, parts: dict[str, Any], identity: dict[str, Any], device: str) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        different = sorted(k for k in identity if saved["identity"].get(k) != identity[k])
    except Exception as error:  # torch raises whatever the damaged part of the file leads to
        raise UserError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if different:
        raise UserError(
            f"{path}: belongs to another training run (differs in {', '.join(different)}); remove it or pass --fresh"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(saved["state"][name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: belongs to another network ({first_line(error)}); remove it or pass --fresh") from error
    return saved["step"], saved["seconds"]
