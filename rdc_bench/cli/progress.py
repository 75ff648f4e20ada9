"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere. Nothing works in silence for long."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rdc_bench.core.stages import Report

if TYPE_CHECKING:
    from rdc_bench.evaluation.tally import Step

#: Seconds after which a stage says that it is under way, and seconds between its plain lines after that.
PATIENCE = 2.0
QUIET = 10.0
#: Whose loggers tell what a run is about to do (INFO) and is doing (DEBUG).
TELLS = "rdc_bench.evaluation"


@contextlib.contextmanager
def stages(first: str = "starting") -> Iterator[Report]:
    """What is called with the stage that a command is in, and shows it; ``first`` is the one that it begins with.

    Open it before importing what takes long to import.
    """
    with _bars() if sys.stderr.isatty() else _plain_lines() as report:
        report(first)
        yield report


@contextlib.contextmanager
def stage_with_bars(what: str) -> Iterator[None]:
    """A stage in which a library draws bars of its own on a terminal, where two at a time would be a muddle."""
    if sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield
        return
    with stages(what):
        yield


@contextlib.contextmanager
def run_progress() -> Iterator[Callable[[Step], None]]:
    """Progress of an evaluation, with the share of images that are still robust under the attack in hand.

    What the evaluation tells of itself is shown as well, from the first moment on: the libraries take seconds to load.
    """
    with stages("starting") as report, _told(report) as telling:

        def show(step: Step) -> None:
            telling.begun = True
            share = f" ({step.robust / step.judged:.0%})" if step.judged else ""  # a witness may have been shown nothing
            robust = f"{step.robust}/{step.judged} right{share}"
            report("evaluating", step.done, step.total, f"{step.threat} · {step.model} · {step.attack}: {robust}")

        yield show


class _Telling(logging.Handler):
    """What is about to be done (INFO) is a line that stays; what is being done (DEBUG) is a stage, until an evaluation begins.

    The evaluation is one stage from then on, so that its time and the time left are those of the whole.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self.begun = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            print(record.getMessage(), file=sys.stderr, flush=True)
        elif not self.begun:
            self._report(record.getMessage())


@contextlib.contextmanager
def _told(report: Report) -> Iterator[_Telling]:
    logger, handler = logging.getLogger(TELLS), _Telling(report)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Count(ProgressColumn):
    """``done/total`` where the total is known."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        return Text("" if task.total is None else f"{int(task.completed)}/{int(task.total)}")


@contextlib.contextmanager
def _bars() -> Iterator[Report]:
    """A bar for each stage whose length is known, which stays, and a moving one for any other, which goes when it is over."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, emoji=False)) as progress:
        current: TaskID | None = None
        shown = ""

        def close() -> None:
            if current is not None and progress.tasks[-1].total is None:
                progress.remove_task(current)
            elif current is not None:
                progress.stop_task(current)

        def report(what: str, done: int = 0, total: int | None = None, note: str = "") -> None:
            nonlocal current, shown
            if what != shown:
                close()
                current, shown = progress.add_task(what, total=total, note=note), what
            assert current is not None
            progress.update(current, completed=done, total=total, note=note)

        try:
            yield report
        finally:
            close()


@contextlib.contextmanager
def _plain_lines() -> Iterator[Report]:
    """A line when a stage has lasted ``PATIENCE`` seconds, one every ``QUIET`` seconds then, and one when all is done."""
    lock, over = threading.Lock(), threading.Event()
    stage: _Stage | None = None

    def report(what: str, done: int = 0, total: int | None = None, note: str = "") -> None:
        nonlocal stage
        with lock:
            if stage is None or what != stage.what or done < stage.done:
                stage = _Stage(what, done)
            stage.hear(done, total, note)
            if done == total:
                stage.print()

    def watch() -> None:
        while not over.wait(PATIENCE / 8):
            with lock:
                if stage is not None and time.monotonic() >= stage.due:
                    stage.print()

    # Whatever the work is doing, also where it does not report: a thread of its own speaks for it.
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield report
    finally:
        over.set()
        watcher.join()


class _Stage:
    """A stage as plain lines tell of it."""

    def __init__(self, what: str, done: int) -> None:
        self.what, self.first, self.done = what, done, done
        self.total: int | None = None
        self.note = ""
        self.began = self.heard = time.monotonic()
        self.due = self.began + PATIENCE

    def hear(self, done: int, total: int | None, note: str) -> None:
        """Take news."""
        self.done, self.total, self.note, self.heard = done, total, note, time.monotonic()

    def print(self) -> None:
        """One line: how far, for how long, how long still. Says when the next is due."""
        now = time.monotonic()
        self.due = now + QUIET
        spent, left, far = now - self.began, "", " ..."
        if self.total is not None:
            far = f": {self.done}/{self.total}"
            if self.first < self.done < self.total:
                each = (self.heard - self.began) / (self.done - self.first)
                left = f", {max(0.0, self.heard + each * (self.total - self.done) - now):.0f} s left"
        print(f"{self.what}{far} ({spent:.0f} s{left}) {self.note}".rstrip(), file=sys.stderr, flush=True)
