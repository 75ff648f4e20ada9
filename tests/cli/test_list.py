"""``rdc-bench list``: quick, no name ever broken, and one row a line for other programs."""

import inspect
import json
import os
import subprocess
import sys
import textwrap

import pytest
import yaml
from rich.cells import cell_len

from rdc_bench.attacks import ATTACKS
from rdc_bench.cli import index, main
from rdc_bench.cli.catalog import CATALOGS
from rdc_bench.cli.list import PIPED, SHOWN, command

LONG = "a-name-" + "z" * 60

CARD = {
    "schema_version": 1,
    "name": LONG,
    "title": "Mine",
    "role": "defense",
    "dataset": "my-own-set-of-images",
    "image_shape": [1, 28, 28],
    "num_classes": 10,
    "license": "MIT",
    "source": "a test",
    "model": {"kind": "diffusion-classifier", "denoiser": "teacher-fashion-mnist"},
}

PLUGIN = textwrap.dedent("""
    import rdc_bench

    @rdc_bench.model("plugged", dataset="fashion-mnist", image_shape=(1, 28, 28), num_classes=10)
    def plugged():
        '''A model of mine.'''

    @rdc_bench.attack("plugged-attack", threats=["linf", "my-kind"], gradient="black-box")
    def plugged_attack(model, x, y, threat, *, generator, strength: float = 1.0):
        '''Adds noise (Someone 2031, arXiv 3101.00001); nothing more.'''
""")


@pytest.fixture
def listed(capsys, monkeypatch):
    """What `rdc-bench list …` answers: exit code, stdout, stderr. ``width``: on a terminal so wide; None: into a pipe."""

    def run(*args, width=None):
        monkeypatch.setattr(sys, "argv", ["rdc-bench", "list", *map(str, args)])
        monkeypatch.setattr("rdc_bench.cli.table.on_terminal", lambda: width is not None)
        monkeypatch.setenv("COLUMNS", str(width or 80))
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with a card that has a long name, and one that has a fault."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{LONG}.yaml").write_text(yaml.safe_dump(CARD))
    (tmp_path / "models" / "faulty.yaml").write_text(yaml.safe_dump({**CARD, "name": "faulty", "colour": "red"}))
    monkeypatch.chdir(tmp_path)


def rows_of(listed, what, *args):
    code, out, _ = listed(what, *args, "--json")
    assert code == 0
    return json.loads(out)


def some(what):
    return CATALOGS[what].rows()[0]["name"]


def test_nothing_that_takes_long_is_imported():
    commands = [["--help"], *([what, *name] for what in CATALOGS for name in ([], [some(what)]))]
    code = f"""
import sys, rdc_bench
from rdc_bench.cli import group
for args in {[["list", *args] for args in commands]!r}:
    group.main([*args], standalone_mode=False)
    group.main([*args, "--json"], standalone_mode=False) if "--help" not in args else None
    heavy = sorted({{"torch", "pandas", "pyarrow", "matplotlib", "scipy"}} & set(sys.modules))
    assert not heavy, (args, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.usefixtures("mine")
def test_on_a_terminal_every_row_is_one_line_and_no_name_is_broken(listed, what, width):
    rows = {row["name"]: row for row in rows_of(listed, what)}
    code, out, err = listed(what, width=width)
    assert (code, err) == (0, "")
    lines = [(line, [cell.strip() for cell in line.split("  ") if cell.strip()]) for line in out.splitlines() if line]
    lines = [(line, cells) for line, cells in lines if cells[0] in rows]
    assert sorted(cells[0] for _, cells in lines) == sorted(rows)
    names = [field for field in SHOWN[what][:-1] if field not in ("shape", "classes", "n")]
    for line, cells in lines:
        assert cell_len(line) <= max(width, *map(len, rows))
        values = [rows[cells[0]][field] for field in names]
        whole = [few(value) if isinstance(value, list) else value for value in values if value]
        assert all(cell in whole for cell in cells[: len(whole)]), line


def few(threats):
    """The first three threats by name, and how many more there are."""
    return ", ".join([*threats[:3], f"{len(threats) - 3} more"] if len(threats) > 3 else threats)


@pytest.mark.usefixtures("mine")
def test_wide_terminals_show_all_columns(listed):
    for what in CATALOGS:
        _, out, _ = listed(what, width=300)
        assert all(field.replace("_", " ") in out for field in SHOWN[what])
        assert "…" not in out


def test_references_wait_for_the_name(listed):
    assert "arXiv" not in listed("attacks", width=300)[1]
    assert "arXiv 1706.06083" in listed("attacks", "pgd", width=300)[1]


@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.usefixtures("mine")
def test_into_a_pipe_goes_one_row_a_line(listed, what):
    code, out, err = listed(what)
    assert (code, err) == (0, "")
    cells = [line.split("\t") for line in out.splitlines()]
    rows = {row["name"]: row for row in rows_of(listed, what)}
    assert sorted(line[0] for line in cells) == sorted(rows)
    assert {len(line) for line in cells} == {len(PIPED[what])}
    assert "\x1b" not in out
    for line in cells:
        told = dict(zip(PIPED[what], line, strict=True))
        assert told.get("dataset", "") in ("", rows[told["name"]].get("dataset"))
    if what == "models":
        assert {line[3] for line in cells} == {"yes", "no"}
        assert all(line[6] for line in cells if line[3] == "no")
        assert not any(line[6] == line[4] for line in cells)
        (faulty,) = [line for line in cells if line[0] == "faulty"]
        assert "unknown field 'colour'" in faulty[6]


def test_the_columns_of_a_pipe_are_documented():
    text = inspect.cleandoc(command.help or "")
    for what, fields in PIPED.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {what} ")]
        assert line.count(",") == len(fields) - 1


def test_a_pipe_and_a_terminal_are_told_apart():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80"}
    args = [sys.executable, "-c", "from rdc_bench.cli import main; main()", "list", "threats"]
    subprocess.run(args, stdout=theirs, env=env, check=True)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    piped = subprocess.run(args, stdout=subprocess.PIPE, env={**env, "FORCE_COLOR": "1"}, text=True, check=True).stdout
    assert "default eps" in shown
    assert "\x1b" in shown
    assert "default eps" not in piped
    assert "\x1b" not in piped


KEYS = {
    "models": ["name", "kind", "role", "dataset", "runnable", "state", "why", "title"],
    "attacks": ["name", "threats", "access", "options", "origin", "summary"],
    "threats": ["name", "title", "default_eps", "seen", "members", "unit", "paper"],
    "datasets": ["name", "shape", "classes", "summary"],
    "recipes": ["name", "title", "dataset", "threat", "eps", "n"],
}


@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.usefixtures("mine")
def test_json_keeps_its_keys(listed, what):
    rows = rows_of(listed, what)
    assert all(list(row) == KEYS[what] for row in rows)


@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.usefixtures("mine")
def test_every_row_is_in_a_group(what):
    groups = {row["group"] for row in CATALOGS[what].rows()}
    assert groups == set(CATALOGS[what].groups) - {"other"}


def test_filters_choose(listed):
    models = rows_of(listed, "models", "--dataset", "cifar10", "--runnable")
    assert models == [row for row in rows_of(listed, "models") if row["dataset"] == "cifar10" and row["runnable"]]
    assert 0 < len(models) < len(rows_of(listed, "models"))
    jpeg = rows_of(listed, "attacks", "--threat", "jpeg-l2")
    assert {row["name"] for row in jpeg} == {"jpeg", "nes", "transfer"}
    unseen = {row["name"] for row in rows_of(listed, "attacks", "--threat", "unseen")}
    assert {"jpeg", "stadv"} <= unseen
    assert "pgd" not in unseen
    assert len(rows_of(listed, "attacks", "--threat", "all")) == len(rows_of(listed, "attacks"))
    assert {row["name"] for row in rows_of(listed, "recipes", "--threat", "stadv")} == {"stadv-table"}
    assert rows_of(listed, "recipes", "--dataset", "cifar10", "--threat", "linf")
    code, out, err = listed("models", "--dataset", "image-folder", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "no models match" in err


def test_a_threats_kind_decides_not_its_name(listed, tmp_path, monkeypatch):
    (tmp_path / "threat_models").mkdir()
    card = {
        "schema_version": 1,
        "name": "large",
        "title": "t",
        "kind": "jpeg-linf",
        "default_eps": "2",
        "unit": "u",
        "paper": "p",
    }
    (tmp_path / "threat_models" / "large.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.chdir(tmp_path)
    named = [row["name"] for row in rows_of(listed, "attacks", "--threat", "large")]
    assert named == [name for name in ATTACKS.names() if "jpeg-linf" in ATTACKS.get(name).threats]
    assert "jpeg" in named
    assert json.loads(listed("threats", "large", "--json")[1])["attacks"] == named


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("atacks",), "Did you mean 'attacks'"),
        (("attacks", "pdg"), "Did you mean 'pgd'"),
        (("threats", "lnif"), "Did you mean 'linf'"),
        (("models", "rdc"), "Did you mean 'rdc-cifar10'"),
        (("datasets", "cifar"), "Did you mean 'cifar10'"),
        (("recipes", "linf-tabel"), "Did you mean 'linf-table'"),
        (("attacks", ""), "unknown attack ''"),
        (("models", "--dataset", "fashin-mnist"), "Did you mean 'fashion-mnist'"),
        (("attacks", "--threat", "unsene"), "Did you mean 'unseen'"),
        (("threats", "--threat", "linf"), "--threat does not filter threats; it filters attacks and recipes"),
        (("attacks", "--runnable"), "--runnable does not filter attacks; it filters models"),
        (("datasets", "--dataset", "cifar10"), "--dataset does not filter datasets"),
        (("attacks", "pgd", "--threat", "l2"), "leave out NAME"),
    ],
)
@pytest.mark.parametrize("width", [None, 80])
def test_bad_input_is_one_line(listed, args, message, width):
    code, out, err = listed(*args, width=width)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_is_told_in_full(listed, name):
    attack = ATTACKS.get(name)
    facts = json.loads(listed("attacks", name, "--json")[1])
    assert facts["options"] == attack.defaults
    assert facts["settings"] == [option._asdict() for option in attack.settings]
    assert facts["threats"] == list(attack.threats)
    for width in (40, 80, None):
        code, out, _ = listed("attacks", name, width=width)
        assert code == 0
        words = out.replace(",", " ").split()
        assert {name, attack.gradient, *attack.threats, *attack.defaults} <= set(words)
        told = " ".join(out.split())
        for option in attack.settings:
            assert option.allowed in told
            assert f"default {option.default}" in told
            assert option.help.replace("``", "") in told
        assert width is None or max(map(cell_len, out.splitlines())) <= max(width, 48)


@pytest.mark.parametrize("what", CATALOGS)
def test_everything_about_one(listed, what):
    for row in rows_of(listed, what):
        code, out, _ = listed(what, row["name"], "--json")
        assert code == 0
        assert json.loads(out)["name"] == row["name"]
        if what != "models":
            assert row["name"] in listed(what, row["name"], width=80)[1].split()
            assert all(line.count("\t") == 1 for line in listed(what, row["name"])[1].splitlines())


def test_plugins_are_told_like_what_is_built_in(listed, tmp_path, registered):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    (row,) = [row for row in rows_of(listed, "attacks", "--plugin", path) if row["name"] == "plugged-attack"]
    assert row == {
        "name": "plugged-attack",
        "threats": ["linf", "my-kind"],
        "access": "black-box",
        "options": {"strength": 1.0},
        "origin": str(path),
        "summary": "Adds noise (Someone 2031, arXiv 3101.00001); nothing more.",
    }
    facts = json.loads(listed("attacks", "plugged-attack", "--json")[1])
    assert facts["paper"] == "Someone 2031, arXiv 3101.00001"
    assert "Adds noise; nothing more." in listed("attacks", width=200)[1]
    (model,) = [row for row in rows_of(listed, "models", "--runnable") if row["name"] == "plugged"]
    assert (model["title"], model["state"]) == ("A model of mine.", "registered")


def test_an_attack_that_the_index_lacks_is_listed_all_the_same(listed, monkeypatch):
    monkeypatch.setattr(index, "read", lambda: {"attacks": [], "datasets": []})
    assert [row["name"] for row in rows_of(listed, "attacks")] == ATTACKS.names()
