"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rdc_bench.evaluation.run import Step

#: Seconds between plain lines.
QUIET = 10.0


@contextlib.contextmanager
def run_progress() -> Iterator[Callable[[Step], None]]:
    """Progress of an evaluation, with the share of images that are still robust under the attack in hand."""
    with _bar("evaluating") as update:

        def show(step: Step) -> None:
            share = f" ({step.robust / step.judged:.0%})" if step.judged else ""  # a witness may have been shown nothing
            robust = f"{step.robust}/{step.judged} right{share}"
            update(step.done, step.total, f"{step.threat} · {step.model} · {step.attack}: {robust}")

        yield show


@contextlib.contextmanager
def training_progress(name: str) -> Iterator[Callable[[int, int, float], None]]:
    """Progress of a training run, with the running loss."""
    with _bar(f"training {name}") as update:
        yield lambda step, steps, loss: update(step, steps, f"loss {loss:.4f}")


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    if not sys.stderr.isatty():
        yield _plain_lines(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True, emoji=False)) as progress:
        task = progress.add_task(title, total=None, text="")
        yield lambda done, total, text: progress.update(task, completed=done, total=total, text=text)


def _plain_lines(title: str) -> Callable[[int, int, str], None]:
    began = last = time.monotonic()
    first: int | None = None

    def show(done: int, total: int, text: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        if first is None:
            first = done
        if now - last < QUIET and done < total:
            return
        last = now
        rate = (done - first) / (now - began) if now > began else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        print(f"{title}: {done}/{total} ({now - began:.0f} s{left}) {text}", file=sys.stderr, flush=True)

    return show
