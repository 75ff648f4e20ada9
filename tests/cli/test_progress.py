"""Nothing works in silence: what is said of long work, on a terminal and elsewhere."""

import io
import json
import logging
import re
import sys
import time

import pytest

import rdc_bench
from rdc_bench import data
from rdc_bench.cli import main, progress
from rdc_bench.cli.progress import stages
from rdc_bench.evaluation.tally import Step
from rdc_bench.training import job, publish


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    monkeypatch.setattr(progress, "QUIET", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_stage_that_never_reports_is_told_of_again_and_again(capsys):
    with stages("loading"):
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 8
    assert all(re.fullmatch(r"loading \.\.\. \(\d+ s\)", line) for line in lines)


def test_what_is_quick_says_nothing_but_that_all_is_done(capsys):
    with stages("loading") as report:
        for done in range(4):
            report("judging", done, 3, f"{done} right")
        report("writing")
    assert capsys.readouterr().err == "judging: 3/3 (0 s) 3 right\n"


def test_the_time_left_runs_down_between_reports(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stage = progress._Stage("judging", 4)  # 4 were done when it was first heard of
    now = 10.0
    stage.hear(9, 19, "")
    for now in (10.0, 15.0, 40.0):  # noqa: B007
        stage.print()
    lines = ["judging: 9/19 (10 s, 20 s left)", "judging: 9/19 (15 s, 15 s left)", "judging: 9/19 (40 s, 0 s left)"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_terminal_shows_a_bar_for_each_stage_and_keeps_those_with_a_length(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)  # here, as pytest sets its own between fixtures and tests
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with stages("loading [x]") as report:
        time.sleep(0.3)
        report("judging", 1, 4, "[1/1] right")
        report("judging", 4, 4, "[4/4] right")
        report("writing")
    shown = stream.getvalue()
    assert "loading [x]" in shown
    kept = re.split(r"\x1b\[2K", shown)[-1]  # what was drawn last, after the lines before were wiped
    assert "judging" in kept
    assert "4/4" in kept
    assert "[4/4] right" in kept
    assert "loading" not in kept
    assert "writing" not in kept


def invoke(capsys, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["rdc-bench", *map(str, args)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


@pytest.mark.parametrize(
    "args",
    [
        ("diffusion", "--fine", "8", "--coarse", "16", "--head", "32", "--head-blocks", "1"),
        ("multihead", "--teacher", "teacher-fashion-mnist"),
        ("baseline", "--method", "standard"),
    ],
)
def test_a_training_tells_of_reading_training_and_judging(capsys, monkeypatch, tmp_path, args):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "VALIDATION_IMAGES", 52)
    monkeypatch.setattr(publish, "VALIDATION_LEVELS", 1)
    monkeypatch.setattr(job, "load_dataset", lambda *args, **kwargs: data.load_dataset("fashion-mnist", "test", 200))
    said = []

    def told(what, done=0, total=None, note=""):
        said.append((what, done, total))

    original = job.Job.__init__
    monkeypatch.setattr(job.Job, "__init__", lambda self, *a, **k: original(self, *a, **{**k, "report": told}))
    code, _, err = invoke(capsys, monkeypatch, "train", *args, "--name", "new", "--images", "4", "--batch-size", "2")
    assert code == 0, err
    stages_ = list(dict.fromkeys(what for what, _, _ in said))
    assert stages_[-5:] == [
        "reading fashion-mnist (train)",
        "preparing to train new",
        "training new",
        "reading fashion-mnist (validation)",
        "judging new on validation images",
    ]
    assert [fact for fact in said if fact[0].startswith("judging")] == [(stages_[-1], done, 52) for done in (0, 50, 52)]


def test_verification_counts_the_images(monkeypatch, capsys, tmp_path, toys):
    done = rdc_bench.run(models=toys, attacks=["fgsm"], n=20, repeats=2, out=tmp_path)
    code, out, err = invoke(capsys, monkeypatch, "verify", done.path, "--json")
    assert code == 0
    assert json.loads(out)["ok"]
    assert err == "checking toy: 20/20 (0 s)\nchecking noisy: 20/20 (0 s)\n"


@pytest.mark.usefixtures("impatient")
def test_a_conversion_that_takes_long_says_so(capsys, monkeypatch, tmp_path):
    def slowly(*args):
        time.sleep(0.4)
        return tmp_path

    monkeypatch.setattr("rdc_bench.conversion.convert.convert", slowly)
    code, out, err = invoke(capsys, monkeypatch, "models", "convert", "x.pt", tmp_path / "new")
    assert code == 0
    assert out == f"{tmp_path}\n"
    assert err.startswith("converting x.pt ... (")


@pytest.mark.usefixtures("impatient")
def test_what_an_evaluation_tells_is_shown_and_the_logger_is_left_as_it_was(capsys):
    logger = logging.getLogger(progress.TELLS)
    before = logger.level, list(logger.handlers)
    with progress.run_progress() as show:
        logging.getLogger(f"{progress.TELLS}.anything").info("models: %s", "[red]one")
        logging.getLogger(f"{progress.TELLS}.anything").debug("loading one")
        time.sleep(0.2)
        show(Step(4, 4, "linf", "one", "pgd", 3, 4))
    out, err = capsys.readouterr()
    assert out == ""
    assert "models: [red]one" in err.splitlines()
    assert "loading one ..." in err
    assert "4/4" in err
    assert (logger.level, logger.handlers) == before


@pytest.mark.parametrize("judged", [0, 3])
def test_an_attack_that_was_shown_nothing_is_no_error(judged, capsys):
    with progress.run_progress() as show:
        show(Step(3, 3, "linf", "one", "witness", 0, judged))
    assert f"0/{judged} right" in capsys.readouterr().err


@pytest.mark.usefixtures("impatient")
def test_an_evaluation_is_one_stage_whatever_is_loaded_on_the_way(capsys):
    with progress.run_progress() as show:
        for done in range(1, 4):
            show(Step(done, 4, "linf", "one", "pgd", done, done))
            logging.getLogger(f"{progress.TELLS}.anything").debug("loading another")
            time.sleep(0.15)
        show(Step(4, 4, "linf", "one", "pgd", 4, 4))
    err = capsys.readouterr().err
    assert "loading another" not in err
    spent = [int(line.split("(")[1].split(" s")[0]) for line in err.splitlines() if line.startswith("evaluating: ")]
    assert spent == sorted(spent)
