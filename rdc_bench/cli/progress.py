"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rdc_bench.evaluation.run import Step

#: Seconds between plain lines.
QUIET = 10.0
#: Whose loggers tell what a run is about to do (INFO) and is doing (DEBUG).
TELLS = "rdc_bench.evaluation"


class _Display(Protocol):
    def update(self, done: int, total: int, text: str) -> None:
        """Show how far the work is."""

    def tell(self, line: str, *, lasting: bool) -> None:
        """Show a line; one that does not last says what is being done now."""


@contextlib.contextmanager
def run_progress() -> Iterator[Callable[[Step], None]]:
    """Progress of an evaluation, with the share of images that are still robust under the attack in hand.

    What the evaluation tells of itself is shown as well, from the first moment on: the libraries take seconds to load.
    """
    with _display("evaluating") as display, _told_to(display):

        def show(step: Step) -> None:
            share = f" ({step.robust / step.judged:.0%})" if step.judged else ""  # a witness may have been shown nothing
            robust = f"{step.robust}/{step.judged} right{share}"
            display.update(step.done, step.total, f"{step.threat} · {step.model} · {step.attack}: {robust}")

        display.tell("starting", lasting=False)
        yield show


@contextlib.contextmanager
def training_progress(name: str) -> Iterator[Callable[[int, int, float], None]]:
    """Progress of a training run, with the running loss."""
    with _display(f"training {name}") as display:
        yield lambda step, steps, loss: display.update(step, steps, f"loss {loss:.4f}")


class _Telling(logging.Handler):
    def __init__(self, display: _Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.tell(record.getMessage(), lasting=record.levelno >= logging.INFO)


@contextlib.contextmanager
def _told_to(display: _Display) -> Iterator[None]:
    logger, handler = logging.getLogger(TELLS), _Telling(display)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextlib.contextmanager
def _display(title: str) -> Iterator[_Display]:
    if not sys.stderr.isatty():
        lines = _Lines(title)
        try:
            yield lines
        finally:
            lines.close()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, emoji=False)) as progress:
        yield _Bar(progress, title)


class _Bar:
    """A bar on a terminal; lasting lines stay above it."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, text="")

    def update(self, done: int, total: int, text: str) -> None:
        self._progress.update(self._task, completed=done, total=total, text=text)

    def tell(self, line: str, *, lasting: bool) -> None:
        if lasting:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._progress.update(self._task, text=line)


class _Lines:
    """Plain lines: those that are told at once, those of progress now and then, and one that time passes where none comes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def update(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last < QUIET and done < total:
            return
        rate = (done - self._first) / (now - self._began) if now > self._began else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        self._print(f"{self._title}: {done}/{total} ({now - self._began:.0f} s{left}) {text}")

    def tell(self, line: str, *, lasting: bool) -> None:
        self._print(line)

    def close(self) -> None:
        self._closed.set()

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _beat(self) -> None:
        """On a thread of its own, as a single shard may take long."""
        while not self._closed.wait(QUIET / 10):
            now = time.monotonic()
            if now - self._last >= QUIET:
                self._print(f"{self._title}: at work for {now - self._began:.0f} s")
