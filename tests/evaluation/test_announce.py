"""What a run tells of itself before it starts, and that telling changes nothing."""

from __future__ import annotations

import logging
import shutil

import pytest

import rdc_bench
from rdc_bench import UserError
from rdc_bench.evaluation.announce import duration
from rdc_bench.results.store import RunFolder

LOGGER = "rdc_bench.evaluation"


@pytest.fixture
def told(caplog):
    """Runs, and gives back what it told."""

    def run(**options) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger=LOGGER):
            rdc_bench.run(**{"attacks": ["pgd", "fgsm"], "n": 5, "repeats": 3, **options})
        return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.INFO)

    return run


def test_everything_that_will_be_done_is_said(told, toys, tmp_path) -> None:
    text = told(models=toys, out=tmp_path, eps="8/255", attack_options={"steps": 7})
    for expected in ("toy, noisy", "first 5 test images of fashion-mnist", "linf, eps 8/255", "pgd (steps 7,", "fgsm (eot 1)"):
        assert expected in text
    assert "3 judging draws" in text
    assert str(tmp_path) in text
    assert "toy: about" in text
    assert "time: about" in text


def test_a_finished_run_says_so_and_where_it_is(told, toys, tmp_path) -> None:
    run = rdc_bench.run(models=["toy"], attacks=["fgsm"], n=3, repeats=3, out=tmp_path)
    assert told(models=["toy"], attacks=["fgsm"], n=3, out=tmp_path) == f"already complete: {run.path}"


def test_a_resumed_run_counts_what_is_done(told, toys, tmp_path) -> None:
    calls = []

    def interrupt(step) -> None:
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt

    options = {"models": toys, "attacks": ["pgd", "fgsm"], "n": 5, "repeats": 3, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        rdc_bench.run(**options, progress=interrupt)
    assert "2 of 6 shards done" in told(models=toys, out=tmp_path)


def test_what_is_unknown_is_said_to_be(told, toys, registered, tmp_path) -> None:
    registered.attack("mine", lambda model, x, y, threat, *, generator: x)
    assert "time: about 1 s, and unknown for mine" in told(models=["toy"], attacks=["mine"], out=tmp_path)


def test_a_set_is_told_as_a_whole_and_its_models_are_timed_once(told, toys, registered, tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr("rdc_bench.evaluation.announce.timed", lambda *given, **options: calls.append(given))
    registered.attack("still", lambda model, x, y, threat, *, generator: x, threats=("linf", "l2", "stadv"))
    text = told(models=toys, threat="all", attacks=["still"], out=tmp_path)
    assert all(f"{threat}, eps" in text for threat in ("linf", "l2", "stadv"))
    assert len(calls) == len(toys)
    assert text.count("toy: unknown") == 1


def test_results_do_not_depend_on_being_told(told, toys, tmp_path) -> None:
    rdc_bench.run(models=toys, attacks=["pgd", "fgsm"], n=5, repeats=3, out=tmp_path / "silent")
    told(models=toys, out=tmp_path / "told")
    silent, aloud = (RunFolder(next((tmp_path / name).iterdir())).records() for name in ("silent", "told"))
    assert silent.drop(columns="seconds").equals(aloud.drop(columns="seconds"))


def test_nothing_is_timed_when_nobody_listens(toys, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("rdc_bench.evaluation.announce.timed", lambda *_args, **_options: pytest.fail("timed"))
    rdc_bench.run(models=["toy"], attacks=["fgsm"], n=2, out=tmp_path)


def test_bad_input_is_refused_before_anything_is_told(told, caplog, toys, tmp_path) -> None:
    with pytest.raises(UserError, match="engine"):
        told(models=["toy"], engine="lokal", out=tmp_path)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (42.4, "42 s"), (125, "2.1 min"), (3000, "50 min"), (9000, "2.5 h"), (100_000, "28 h"), (1e6, "12 days")],
)
def test_durations_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said
