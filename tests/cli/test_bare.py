"""Options that are wrong by themselves are refused before data are looked for: a machine may have none."""

import re
import sys
from dataclasses import replace

import click
import pytest

from rdc_bench.cli import group, main
from rdc_bench.cli.train import Number
from rdc_bench.data import DATASETS

#: Commands, with arguments that nothing is wrong with.
COMMANDS = {
    "run": (),
    "diagnose": ("standard-fashion-mnist",),
    "reproduce": ("linf-table",),
    "train diffusion": ("--name", "new"),
    "train multihead": ("--name", "new", "--teacher", "teacher-fashion-mnist"),
    "train baseline": ("--name", "new", "--method", "pgd"),
}
SIZES = ("80", "nan", "-1", "0", "8/0", "eight", "")
#: Values that are wrong for options that take any text.
TEXTS = {
    "--attack": ("pdg",),
    "--attack-arg": ("steps", "stesp=1"),
    "--model-arg": ("checkpoint", "chekpoint=a.pt"),
    "--bayes-eps": SIZES,
    "--dataset": ("fashoin-mnist",),
    "--device": ("gpu9",),
    "--engine": ("lokal",),
    "--eps": SIZES,
    "--model": ("nobody",),
    "--name": ("My Card", ""),
    "--plugin": ("nowhere.py",),
    "--profile": ("fast",),
    "--start": ("nobody", "standard-fashion-mnist", "teacher-cifar10"),
    "--surrogate": ("nobody",),
    "--teacher": ("nobody", "standard-fashion-mnist", "teacher-cifar10"),
    "--threat": ("lnif",),
}
#: Numbers that may be any, and places, which only writing or reading can prove wrong.
ANY = {"--seed", "--data-dir", "--out", "--checkpoints", "--results"}
#: Wrong for the images and the classes of the dataset, which are known without reading it, or wrong together.
TOGETHER = [
    ("train diffusion", ("--bayes-eps", "8/255"), "bayes-weight above 0"),
    ("train diffusion", ("--bayes-weight", "1", "--rivals", "10"), "rivals = 10: of 10 classes, 9 are wrong"),
    ("train diffusion", ("--fine", "12"), "fine = 12.*a multiple"),
    ("train diffusion", ("--coarse", "104"), "104 channels.*a multiple of 32"),
    ("train diffusion", ("--patch", "3"), "28 is not divisible by 2 . patch = 6"),
    ("train diffusion", ("--shift", "28"), "shift = 28: the images of fashion-mnist have 28 pixels a side"),
    ("train diffusion", ("--dataset", "restricted-imagenet"), "no 'train' split"),
    ("train multihead", ("--heads", "10"), "heads = 10: of 10 classes, 9 are wrong"),
    ("train multihead", ("--start", "teacher-cifar10"), "3 channels of 32×32 pixels, fashion-mnist has 1 channel"),
    ("train multihead", ("--dataset", "cifar10"), "1 channel of 28×28 pixels, cifar10 has 3 channels"),
    ("train baseline", ("--threat", "stadv"), "linf and l2, not stadv"),
    ("diagnose", ("--threat", "stadv"), "linf and l2, not stadv"),
    ("diagnose", ("--n", "5"), "at least 6 images"),
    ("run", ("--n", "0"), "at least one image"),
    ("run", ("--repeats", "0"), "at least one"),
]


def parameters(command):
    found = group
    for word in command.split():
        found = found.get_command(click.Context(found), word)
    return {parameter.opts[0]: parameter for parameter in found.params if parameter.param_type_name == "option"}


def wrong_values(option, kind):
    """Values that a parameter of this type cannot have."""
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        whole = isinstance(kind, click.IntRange)
        beyond = [kind.min - 1] + ([kind.max + 1] if kind.max is not None else [])
        at = [bound for bound, is_open in ((kind.min, kind.min_open), (kind.max, kind.max_open)) if is_open]
        return [*beyond, *at, "many", *(["1.5"] if whole else ["nan", "inf", "-inf"])]
    if isinstance(kind, click.Choice):
        return ["neither"]
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return ["many"]
    return TEXTS[option]


WRONG = [
    (command, option, value)
    for command in COMMANDS
    for option, parameter in parameters(command).items()
    if option not in ANY and not parameter.is_flag
    for value in wrong_values(option, parameter.type)
]


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    """Whoever looks for data fails the test; results would go to a folder of the test's own."""

    def looked(split, *, n, data_dir, allow_download):
        pytest.fail("data were looked for")

    for name, info in DATASETS.items():
        if name != "restricted-imagenet":  # which has no training images, and says so before it looks
            monkeypatch.setitem(DATASETS, name, replace(info, load=looked))
    monkeypatch.chdir(tmp_path)


def refused(capsys, monkeypatch, command, options):
    """The last line of what is said, by a command that must fail."""
    monkeypatch.setattr(sys, "argv", ["rdc-bench", *command.split(), *COMMANDS[command], *map(str, options)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 2, err
    assert out == ""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.mark.parametrize(("command", "option", "value"), WRONG)
def test_a_wrong_value_is_refused_before_data_are_looked_for(capsys, monkeypatch, command, option, value):
    assert len(refused(capsys, monkeypatch, command, (option, value))) > 20


@pytest.mark.parametrize(("command", "options", "message"), TOGETHER)
def test_what_does_not_fit_is_refused_before_data_are_looked_for(capsys, monkeypatch, command, options, message):
    assert re.search(message, refused(capsys, monkeypatch, command, options))


@pytest.mark.parametrize("option", ["--out", "--checkpoints"])
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("train")])
def test_a_file_is_no_folder_to_write_to(capsys, monkeypatch, tmp_path, command, option):
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(capsys, monkeypatch, command, (option, tmp_path / "file"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("train")])
def test_every_number_of_a_training_has_a_range(command):
    kinds = {option: parameter.type for option, parameter in parameters(command).items() if option not in ANY}
    for option, kind in kinds.items():
        if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
            assert isinstance(kind, (click.IntRange, Number)), f"{option} takes any number"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "reproduce"])
def test_with_nothing_wrong_data_are_looked_for(capsys, monkeypatch, command):
    """Else the tests above would prove nothing."""
    with pytest.raises(pytest.fail.Exception, match="data were looked for"):
        refused(capsys, monkeypatch, command, ())
