"""Progress where there is no terminal: plain lines, and never a long silence."""

from __future__ import annotations

import logging
import time

import pytest

from rdc_bench.cli import progress
from rdc_bench.evaluation.run import Step


def test_what_an_evaluation_tells_is_shown_and_the_logger_is_left_as_it_was(capsys) -> None:
    logger = logging.getLogger(progress.TELLS)
    before = logger.level, list(logger.handlers)
    with progress.run_progress() as show:
        logging.getLogger(f"{progress.TELLS}.anything").info("models: %s", "[red]one")
        logging.getLogger(f"{progress.TELLS}.anything").debug("loading one")
        show(Step(4, 4, "linf", "one", "pgd", 3, 4))
    out, err = capsys.readouterr()
    assert out == ""
    assert {"starting", "models: [red]one", "loading one"} <= set(err.splitlines())
    assert "4/4" in err
    assert (logger.level, logger.handlers) == before


def test_long_work_without_news_says_that_it_goes_on(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.2)
    with progress.run_progress():
        time.sleep(1.0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "at work for" in line]
    assert 2 <= len(lines) <= 5
    time.sleep(0.5)
    assert "at work" not in capsys.readouterr().err


@pytest.mark.parametrize("judged", [0, 3])
def test_an_attack_that_was_shown_nothing_is_no_error(judged: int, capsys) -> None:
    with progress.run_progress() as show:
        show(Step(3, 3, "linf", "one", "witness", 0, judged))
    assert f"0/{judged} right" in capsys.readouterr().err
