"""How tests are run: what a session says of those it skipped, and the machine that has nothing."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def session(tmp_path):
    """Runs pytest with the project's hooks on a file of its own, of whose tests three need a file ``data``."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_one.py").write_text(
        textwrap.dedent("""
            import pathlib, pytest
            needs = pytest.mark.skipif(not pathlib.Path("data").exists(), reason="no data")
            def test_always(): pass
            @needs
            @pytest.mark.parametrize("x", [1, 2])
            def test_some(x): pass
            def test_never(): pytest.skip("never")
        """)
    )
    (tmp_path / "test_whole.py").write_text('import pytest\npytest.importorskip("nowhere")\ndef test_in_it(): pass\n')

    def run(*args):
        command = [sys.executable, "-m", "pytest", "-q", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_reasons_are_counted_and_what_was_skipped_can_be_run_alone(session, tmp_path):
    first = session()
    assert first.returncode == 0
    assert "   2  no data\n" in first.stdout
    assert "   1  never\n" in first.stdout
    assert "1 passed, 4 skipped" in first.stdout
    (tmp_path / "data").touch()
    second = session("--skipped")
    assert second.returncode == 0
    assert "2 passed, 2 skipped, 1 deselected" in second.stdout
    assert session("--skipped", "test_one.py").stdout.count("2 passed, 1 skipped, 1 deselected") == 1  # the list stays


def test_nothing_skipped_is_no_failure(session):
    assert session("test_one.py::test_always").returncode == 0
    after = session("--skipped", "test_one.py")
    assert after.returncode == 0
    assert "4 deselected" in after.stdout


@pytest.mark.skipif(not (ROOT / ".ci" / "bare").is_file() or sys.platform != "linux", reason="needs a clone, on Linux")
def test_the_bare_machine_has_no_settings_and_an_empty_home(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    script = "import json, os; print(json.dumps([dict(os.environ), os.listdir(os.environ['HOME'])]))"
    command = [ROOT / ".ci" / "bare", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "secret" not in done.stdout
    assert done.stdout.rstrip().endswith(", []]")
    failed = subprocess.run(
        [ROOT / ".ci" / "bare", "sh", "-c", 'echo "$HOME"; exit 3'], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 3
    assert not os.path.exists(failed.stdout.strip())
