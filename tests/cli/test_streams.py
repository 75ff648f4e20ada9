"""Streams in encodings that lack our characters, full, closed, or closed early."""

import io
import json
import os
import subprocess
import sys

import pytest

from rdc_bench.cli import COMMANDS, main
from rdc_bench.cli import streams as module

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "utf-8"]


def spoken(monkeypatch, encoding, *arguments):
    """(exit code, stdout, stderr) of a command whose streams have this encoding."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(sys, "argv", ["rdc-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode(encoding))
    return stopped.value.code, *texts


def run_args(plugin, out):
    return "run", "--plugin", plugin, "--model", "plugged", "--attack", "waits", "--n", 2, "--out", out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_run_its_report_and_an_error(monkeypatch, plugin, tmp_path, encoding):
    code, out, err = spoken(monkeypatch, encoding, *run_args(plugin, tmp_path / "results"))
    assert code == 0, err
    first = out.splitlines()[0].split()
    assert first[:3] == ["fashion-mnist", "·" if encoding != "ascii" else "-", "linf"]
    assert "plugged" in err
    assert ("─" in out) == (encoding == "utf-8")
    code, out, err = spoken(monkeypatch, encoding, "report", tmp_path / "results", "--format", "csv")
    assert code == 0, err
    assert "?" not in out
    code, out, err = spoken(monkeypatch, encoding, "run", "--threat", "ℓ∞")
    assert code == 2
    assert err.startswith(f"error: unknown threat '{'ℓ∞' if encoding == 'utf-8' else 'l' + ('∞' if '∞' in err else 'inf')}'")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "arguments",
    [
        *[(name, "--help") for name in COMMANDS],
        ("train", "diffusion", "--help"),
        ("--help",),
        ("list", "threats"),
        ("list", "datasets"),
        ("models", "info", "trades-linf-fashion-mnist"),
    ],
)
def test_no_text_of_ours_needs_more_than_plain_characters(monkeypatch, encoding, arguments):
    code, out, err = spoken(monkeypatch, encoding, *arguments)
    assert code == 0, err
    assert "\\x" not in out
    assert "\\u" not in out


def test_greek_and_signs_are_spelt_out(monkeypatch):
    _, out, _ = spoken(monkeypatch, "ascii", "train", "diffusion", "--help")
    assert "Mean of ln sigma." in out
    assert "1 / (1 - EMA)" in " ".join(out.split())
    _, out, _ = spoken(monkeypatch, "ascii", "models", "info", "trades-linf-fashion-mnist")
    assert "beta = 6" in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_exact_in_every_encoding(monkeypatch, encoding):
    code, out, _ = spoken(monkeypatch, encoding, "models", "info", "trades-linf-fashion-mnist", "--json")
    assert code == 0
    assert "β = 6" in json.loads(out)["title"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [("·→ε≤ℓ∞", b"-->eps<=linf"), ("σ Σ ω Δ", b"sigma Sigma omega Delta"), ("é 面 😀", rb"\xe9 \u9762 \U0001f600")],
)
def test_what_stands_for_what(text, plain):
    assert text.encode("ascii", module.ERRORS) == plain
    assert text.encode(module.ASCII, module.ERRORS) == plain


def test_undecodable_bytes_of_a_path_can_be_told(monkeypatch, tmp_path):
    name = os.fsdecode(bytes(tmp_path) + b"/\xff")
    for encoding in ENCODINGS:
        code, _, err = spoken(monkeypatch, encoding, "report", name)
        assert code == 2
        assert r"\udcff: no such folder" in err


def subprocess_of(*arguments, environment=None, **options):
    code = "import sys; from rdc_bench.cli import main; sys.argv = ['rdc-bench', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**os.environ, **(environment or {})}, check=False, **options)


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_ascii_terminals_of_the_system(environment):
    done = subprocess_of("train", "diffusion", "--help", environment=environment, capture_output=True)
    assert done.returncode == 0
    assert b"Mean of ln sigma." in done.stdout


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_went_away_is_no_error(stream):
    gone, kept = os.pipe()
    os.close(gone)
    other = "stderr" if stream == "stdout" else "stdout"
    arguments = ["--help"] if stream == "stdout" else ["rnu"]
    done = subprocess_of(*arguments, **{stream: kept, other: subprocess.PIPE})
    os.close(kept)
    assert done.returncode == (141 if stream == "stdout" else 2)
    assert not getattr(done, other)


def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess_of("--help", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"error: no space is left on the device")


def test_closed_streams_are_nothing_to_fail_of():
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "from rdc_bench.cli import main; main()" >&- 2>&-', sys.executable], check=False
    )
    assert done.returncode in (0, 2)  # click's code for a command that was not named
