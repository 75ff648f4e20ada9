"""What the machine does to a command: full disks, folders that cannot be written, other processes, requests to end."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from rdc_bench.cli import _interruptible
from rdc_bench.cli.catalog import CATALOGS
from rdc_bench.results.store import RunFolder


def run_args(plugin, out, n=6):
    attacks = "--attack", "fgsm", "--attack", "waits"
    return "run", "--plugin", plugin, "--model", "plugged", *attacks, "--n", n, "--out", out, "--json"


def one_line(result, *says, begun=False):
    """The error is one line that says what it should, and the exit code is 2. Where work had ``begun``, others come before."""
    code, out, err = result
    *before, line = err.splitlines()
    assert begun or not before
    assert not any(line.startswith("error") for line in before)
    assert code == 2
    assert "Traceback" not in err + out
    assert "Errno" not in line
    assert line.startswith("error: ")
    for text in says:
        assert text in line
    return line


def the_run(out):
    (folder,) = (path for path in out.iterdir() if path.name.startswith("fashion-mnist-linf"))
    return RunFolder(folder)


def assert_same_records(first, second):
    a, b = the_run(first).records(), the_run(second).records()
    columns = [c for c in a.columns if c != "seconds"]
    pd.testing.assert_frame_equal(a[columns], b[columns])


@pytest.fixture
def full(monkeypatch):
    """``full(k)``: after k files more, nothing can be synced any more; ``full(None)``: there is room again."""
    real, left = os.fsync, [None]

    def fsync(handle):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        if left[0] is not None:
            left[0] -= 1
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda files: left.__setitem__(0, files)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_loses_nothing(program, plugin, tmp_path, full, monkeypatch):
    program(*run_args(plugin, tmp_path / "whole"))
    monkeypatch.setattr("rdc_bench.evaluation.shards.SHARD", {True: 6, False: 6})
    out, stopped = tmp_path / "out", 0
    for writes in range(100):
        shutil.rmtree(out, ignore_errors=True)
        full(writes)
        result = program(*run_args(plugin, out))
        full(None)
        if result[0] == 0:
            break
        stopped += 1
        one_line(result, str(out), "no space is left on the device; make room, then give the same command again", begun=True)
        finished = False
        if writes:  # else nothing can be written at all, and nothing was begun
            folder = the_run(out)
            finished = folder.exists and folder.complete  # the rename of its manifest may be what could not be synced
            if folder.exists and not finished:
                assert folder.manifest().status in ("started", "interrupted")
        assert not [path for path in out.rglob("*.tmp") if path.is_file()]
        code, _, err = program(*run_args(plugin, out))
        assert code == 0, err
        assert_same_records(tmp_path / "whole", out)
        left = {path.name for path in the_run(out).path.iterdir()} - {"run.json", "records.parquet", "adversarial.safetensors"}
        assert left == ({"shards"} if finished else set())
    assert 15 < stopped < 100


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KiB; a function makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)

    try:
        if mount("size=300k").returncode:
            pytest.skip("nothing can be mounted here")
    except FileNotFoundError:
        pytest.skip("there is no program mount")
    yield place, lambda: mount("remount,size=9m")
    subprocess.run(["umount", place], check=True)


def test_a_real_full_disk(program, plugin, tmp_path, small_disk):
    disk, enlarge = small_disk
    arguments = run_args(plugin, disk / "results", n=128)
    for _ in range(2):  # as often as one tries
        one_line(program(*arguments), str(disk), ".safetensors: no space is left on the device", begun=True)
    done = sorted(path.name for path in the_run(disk / "results").path.glob("shards/*.parquet"))
    assert len(done) >= 2
    assert the_run(disk / "results").manifest().status in ("started", "interrupted")
    enlarge()
    code, _, err = program(*arguments)
    assert code == 0, err
    program(*run_args(plugin, tmp_path / "whole", n=128))
    assert_same_records(tmp_path / "whole", disk / "results")


def test_a_limit_on_the_size_of_files(program, plugin, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = run_args(plugin, tmp_path / "out", n=64)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        result = program(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    one_line(result, ".safetensors: the file would be larger than is allowed; raise the limit (ulimit -f)", begun=True)
    assert program(*arguments)[0] == 0


@pytest.fixture(params=["below a file", "a dangling link", "not permitted", "read-only"])
def forbidden(request, tmp_path, monkeypatch):
    """A folder where nothing can be written, and what is said of it."""
    place = tmp_path / "place"
    free = tmp_path / "free"
    free.mkdir()
    free.chmod(0o777)
    monkeypatch.chdir(free)
    if request.param == "below a file":
        place.touch()
        yield place / "below", ("no folder; choose another place",)
    elif request.param == "a dangling link":
        place.symlink_to(tmp_path / "nowhere")
        yield place / "below", ("no such file or folder", "something of this name is there already")
    elif request.param == "not permitted":
        place.mkdir()
        place.chmod(0o555)
        for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own are the owner's alone
            folder.chmod(0o755)
        if os.geteuid():
            yield place, ("permission denied; choose another place",)
        else:
            os.seteuid(65534)
            try:
                os.listdir(Path(os.__file__).parent)  # modules that are imported on the way lie there
            except PermissionError:
                os.seteuid(0)
                pytest.skip("Python's own files are closed to other users")
            try:
                yield place, ("permission denied; choose another place",)
            finally:
                os.seteuid(0)
    else:
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        yield place / "below", ("the file system can be read only; choose another place",)
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--model", "plugged", "--attack", "waits", "--n", 2, "--out"),
        ("run", "--threat", "all", "--model", "plugged", "--attack", "fgsm", "--n", 2, "--out"),
        ("reproduce", "linf-table", "--n", 2, "--out"),
        ("diagnose", "standard-fashion-mnist", "--n", 2, "--results"),
        ("diagnose", "standard-fashion-mnist", "--n", 2, "--results", ".", "--out"),
        ("train", "baseline", "--method", "standard", "--name", "new", "--out"),
        ("train", "baseline", "--method", "standard", "--name", "new", "--out", ".", "--checkpoints"),
        ("report", "missing", "--out"),
        ("models", "convert", "missing.pt"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(
    program, plugin, forbidden, arguments, monkeypatch, tmp_path
):
    def computes(*args, **kwargs):
        raise AssertionError("something is computed")

    for work in ("evaluation.run._execute", "diagnostics.run.make_subject", "training.job.load_dataset", "reporting.compare"):
        monkeypatch.setattr(f"rdc_bench.{work}", computes)
    place, says = forbidden
    if arguments[:2] == ("models", "convert") and place.parent.is_symlink():
        pytest.skip("a conversion follows links")
    plugins = ["--plugin", plugin] if arguments[0] == "run" else []
    last = [place / "new"] if arguments[:2] == ("models", "convert") else [place]
    line = one_line(program(*arguments, *last, *plugins))
    assert str(place).removesuffix("/below") in line
    assert any(words in line for words in says)


def test_two_processes_a_kill_and_a_request_to_end(program, plugin, tmp_path):
    """One process works; another is refused and told who works there. Ended in both ways, it leaves what the next one needs."""
    (tmp_path / "hold").touch()
    out = tmp_path / "out"

    def begun():
        (tmp_path / "held").unlink(missing_ok=True)
        code = "import sys; from rdc_bench.cli import main; sys.argv = ['rdc-bench', *sys.argv[1:]]; main()"
        command = [sys.executable, "-c", code, *map(str, run_args(plugin, out))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (tmp_path / "held").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        return process

    first = begun()
    line = one_line(program(*run_args(plugin, out)), f"process {first.pid} on ", " has been at work on it since ")
    assert str(the_run(out).path) in line
    code, _, err = program("report", out)
    assert code == 0, err
    first.terminate()
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert said.strip().splitlines()[-1].startswith("interrupted; what was done is kept")
    assert "Traceback" not in said
    assert the_run(out).manifest().status == "interrupted"
    done = {path.name: path.stat().st_mtime_ns for path in the_run(out).path.glob("shards/*.parquet")}
    assert len(done) == 2  # clean, and the attack that does not wait

    second = begun()
    second.kill()
    second.wait()
    assert {path.name: path.stat().st_mtime_ns for path in the_run(out).path.glob("shards/*.parquet")} == done
    (tmp_path / "hold").unlink()
    code, _, err = program(*run_args(plugin, out))
    assert code == 0, err
    program(*run_args(plugin, tmp_path / "whole"))
    assert_same_records(tmp_path / "whole", out)


@pytest.mark.parametrize("left", [[], ["shards/lock"], ["shards/lock", ".run.json.abcdefgh.tmp"]])
def test_killed_before_it_said_what_it_is_a_folder_is_still_ours(program, plugin, tmp_path, left):
    program(*run_args(plugin, tmp_path / "out"))
    folder = the_run(tmp_path / "out").path
    shutil.rmtree(folder)
    for name in left:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    code, _, err = program(*run_args(plugin, tmp_path / "out"))
    assert code == 0, err
    assert {path.name for path in folder.iterdir()} == {"run.json", "records.parquet", "adversarial.safetensors"}


def test_a_finished_run_needs_no_lock_and_no_writing(program, plugin, tmp_path):
    arguments = run_args(plugin, tmp_path / "out")
    first = json.loads(program(*arguments, "--json")[1])
    with RunFolder(the_run(tmp_path / "out").path).at_work():
        assert json.loads(program(*arguments, "--json")[1]) == first


def test_a_set_is_refused_before_anything_is_computed_while_one_of_its_runs_is_worked_on(program, plugin, tmp_path):
    arguments = ("run", "--plugin", plugin, "--model", "plugged", "--attack", "fgsm", "--n", 2, "--out", tmp_path / "out")
    program(*arguments, "--threat", "l2")
    (path,) = (tmp_path / "out").iterdir()
    shutil.rmtree(path)
    with RunFolder(path).at_work():
        line = one_line(program(*arguments, "--threat", "all"), f"{path}: process {os.getpid()} on ")
    assert line.endswith("; wait for it, or stop it")
    assert not list((tmp_path / "out").rglob("run.json"))
    _, _, err = program(*arguments, "--threat", "all")
    assert len(list((tmp_path / "out").glob("*/run.json"))) == 2, err


@pytest.mark.parametrize("gone", ["run.json", "records.parquet"])
def test_a_file_that_vanishes_under_a_report_is_one_line(program, plugin, tmp_path, gone, monkeypatch):
    from rdc_bench.reporting import comparison

    program(*run_args(plugin, tmp_path / "out"))
    real = comparison.find_runs

    def found(results):
        folders = real(results)
        (folders[0].path / gone).unlink()
        return folders

    monkeypatch.setattr(comparison, "find_runs", found)
    one_line(program("report", tmp_path / "out"), gone, "no such file or folder; it is misspelt, or was removed meanwhile")


def test_a_shard_that_may_not_be_read_is_not_computed_again(program, plugin, tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", "the shard")

    monkeypatch.setattr("rdc_bench.results.store.pq.read_table", forbidden)
    one_line(program(*run_args(plugin, tmp_path / "out")), "the shard: permission denied", begun=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_is_an_interruption(name):
    number = getattr(signal, name)

    def asked():
        with _interruptible():
            os.kill(os.getpid(), number)
            time.sleep(5)

    before = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            asked()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with _interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_mistake_in_a_program_still_shows_where(program, monkeypatch):
    def wrong():
        raise OSError("a library's own words")

    monkeypatch.setitem(CATALOGS, "attacks", CATALOGS["attacks"]._replace(rows=wrong))
    with pytest.raises(OSError, match="own words"):
        program("list", "attacks")
