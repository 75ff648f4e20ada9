"""The command line as a user meets it: exit codes, one-line errors, JSON on stdout and nothing else there."""

import json
import re
import subprocess
import sys
import textwrap

import pytest

from rdc_bench.cli import COMMANDS, main

PLUGIN = textwrap.dedent("""
    import torch, rdc_bench
    from rdc_bench import attack

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(10, 784, generator=torch.Generator().manual_seed(0)))
        def forward(self, x):
            return x.flatten(1) @ self.weight.T

    @rdc_bench.model("plugged", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10)
    def plugged():
        return Linear()

    @attack("plugged-attack", threats=["linf"], gradient="black-box")
    def plugged_attack(model, x, y, threat, *, generator, strength: float = 1.0):
        return threat.project(x, x + strength * (torch.rand(x.shape, generator=generator) - 0.5))

    @attack("plugged-crash", threats=["linf"])
    def plugged_crash(model, x, y, threat, *, generator):
        raise ValueError("planted")
""")


@pytest.fixture
def plugin(tmp_path, registered):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return str(path)


def invoke(capsys, *args):
    before, sys.argv = sys.argv, ["rdc-bench", *map(str, args)]
    with pytest.raises(SystemExit) as stopped:
        main()
    sys.argv = before
    out, err = capsys.readouterr()
    return stopped.value.code, out, err


def run_args(plugin, tmp_path, *more):
    return (
        "run",
        "--plugin",
        plugin,
        "--model",
        "plugged",
        "--attack",
        "plugged-attack",
        "--n",
        6,
        "--out",
        tmp_path / "results",
        *more,
    )


def test_run_then_report_then_verify(capsys, plugin, tmp_path):
    code, out, err = invoke(capsys, *run_args(plugin, tmp_path, "--threat", "linf", "--eps", "8/255", "--json"))
    assert code == 0, err
    document = json.loads(out)
    assert document["eps"] == "8/255"
    (model,) = document["models"]
    assert set(model["robust"]) >= {"avg", "worst", "undecided"}
    assert model["clean"]["low"] <= model["clean"]["value"] <= model["clean"]["high"]
    assert set(model["attacks"]["plugged-attack"]) >= {"avg", "worst", "status"}
    assert {"nfe_per_image", "seconds_per_image", "status"} <= set(model)
    assert "evaluating" in err

    code, out, _ = invoke(capsys, "report", tmp_path / "results", "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["model"] == "plugged"
    assert row["source"] == "measured"

    code, out, _ = invoke(capsys, "report", tmp_path / "results")
    assert code == 0
    assert "plugged" in out
    assert (tmp_path / "results" / "report" / "report.md").is_file()

    code, out, _ = invoke(capsys, "verify", document["run"], "--plugin", plugin)
    assert code == 0
    assert "verified" in out


def test_a_set_of_threats_is_one_command_with_one_document(capsys, plugin, tmp_path):
    args = run_args(plugin, tmp_path, "--threat", "all", "--attack", "fgsm")
    code, out, err = invoke(capsys, *args, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [run["threat"] for run in document["runs"]] == ["l2", "linf"]
    assert all("models" in run and run["eps"] for run in document["runs"])
    assert {row["threat"] for row in document["skipped"]} >= {"l1", "stadv"}
    assert re.search("threat stadv: skipped: attack .* works under", err)
    (row,) = document["summary"]
    assert row["model"] == "plugged"
    assert row["union"]["worst"]["value"] <= row["lowest"]["worst"]["value"] <= row["mean"]["worst"]

    code, out, err = invoke(capsys, *args)
    assert code == 0, err
    assert "linf 8/255" in out
    assert "all (2): union" in out
    code, out, _ = invoke(capsys, "report", tmp_path / "results", "--json")
    (table,) = json.loads(out)["across"]
    assert [column["threat"] for column in table["threats"]] == ["l2", "linf"]
    assert table["models"][0]["sets"]["all"] == row
    report = (tmp_path / "results" / "report" / "report.md").read_text()
    assert "all (2): union" in report
    assert (tmp_path / "results" / "report" / "threats.csv").is_file()


def test_sets_are_listed_with_their_members(capsys):
    code, out, _ = invoke(capsys, "list", "threats", "--json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows["unseen"]["members"]) == {name for name, row in rows.items() if row["seen"] is False}
    assert set(rows["all"]["members"]) == set(rows) - {"unseen", "all"}


def test_attacks_that_fail_give_exit_code_1_and_say_so(capsys, plugin, tmp_path):
    args = [a if a != "plugged-attack" else "plugged-crash" for a in run_args(plugin, tmp_path)]
    code, out, err = invoke(capsys, *args)
    assert code == 1, err
    assert "planted" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--eps", "8/0"), "divides by zero"),
        (("--eps", "-1"), "not a positive number"),
        (("--eps", "80"), "did you mean 80/255"),
        (("--threat", "lnif"), "Did you mean 'linf'"),
        (("--threat", "unsene"), "Did you mean 'unseen'"),
        (("--threat", "unseen", "--eps", "8/255"), "each threat of the set has its own size"),
        (("--model", "pluged"), "plugged"),
        (("--attack", "pdg"), "pgd"),
        (("--n", "0"), "at least one image"),
        (("--n", "-3"), "at least one image"),
        (("--n", "1000000"), "n = |not in"),
        (("--n", "three"), "not a valid integer"),
        (("--profile", "fast"), "quick"),
        (("--attack-arg", "strength"), "KEY=VALUE"),
        (("--model-arg", "checkpoint"), "KEY=VALUE"),
        (("--model-arg", "checkpoint=my.pt"), "timm:NAME"),
        (("--attack-arg", "strenght=1"), "strength"),
        (("--device", "gpu9"), "device"),
        (("--dataset", "fashion"), "fashion-mnist"),
        (("--plugin", "nowhere.py"), "no such file"),
        (("--thraet", "linf"), "--threat"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(capsys, plugin, tmp_path, args, message):
    code, out, err = invoke(capsys, *run_args(plugin, tmp_path), *args)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert re.search(message, last), last
    assert not (tmp_path / "results").exists()


def test_a_shift_wider_than_the_images_is_refused_before_training(capsys, tmp_path):
    code, _, err = invoke(capsys, "train", "diffusion", "--name", "wide", "--bayes-eps", "80", "--out", tmp_path)
    assert code == 2
    assert "did you mean 80/255" in err
    assert not list(tmp_path.iterdir())


def test_a_broken_plugin_is_one_line(capsys, tmp_path, registered):
    path = tmp_path / "broken.py"
    path.write_text("1/0")
    code, _, err = invoke(capsys, "list", "attacks", "--plugin", path)
    assert code == 2
    assert "ZeroDivisionError" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("what", ["models", "attacks", "threats", "datasets"])
def test_lists(capsys, what, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = invoke(capsys, "list", what, "--json")
    assert code == 0
    rows = json.loads(out)
    assert rows
    assert all(row["name"] for row in rows)
    if what == "models":
        assert all({"runnable", "why"} <= set(row) for row in rows)
    code, out, _ = invoke(capsys, "list", what)
    assert code == 0
    assert rows[0]["name"] in out


def test_mistyped_words_are_guessed(capsys):
    code, _, err = invoke(capsys, "list", "atacks")
    assert code == 2
    assert "Did you mean 'attacks'" in err
    code, _, err = invoke(capsys, "rum")
    assert code == 2
    assert "Did you mean 'run'" in err


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), ("train", "diffusion"), ("train", "multihead")])
def test_every_command_has_help_without_torch(command):
    code = (
        "import sys; from rdc_bench.cli import main; sys.argv = ['rdc-bench', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 0, stop.code\n"
        "assert 'torch' not in sys.modules, 'help imported torch'"
    )
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_interruption_is_130_and_resumable(capsys, plugin, tmp_path, monkeypatch):
    from rdc_bench.evaluation.execute import Executor

    original = Executor.attack

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Executor, "attack", interrupted)
    code, _, err = invoke(capsys, *run_args(plugin, tmp_path))
    assert code == 130
    assert "goes on from there" in err
    monkeypatch.setattr(Executor, "attack", original)
    code, _, err = invoke(capsys, *run_args(plugin, tmp_path))
    assert code == 0, err


def test_a_foreign_results_folder_is_refused(capsys, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{}")
    for command in ("report", "verify"):
        code, _, err = invoke(capsys, command, tmp_path / ("x" if command == "verify" else "."))
        assert code == 2
        assert "not a manifest of rdc-bench" in err
