from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rdc_bench.files import check_writable, write_atomically, write_folder_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize(("failure", "error"), [(full_disk, OSError), (interrupted, KeyboardInterrupt)])
@pytest.mark.parametrize("before", [b"old", None])
def test_failed_write_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    failure: Callable,
    error: type[BaseException],
    before: bytes | None,
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failure)
        with pytest.raises(error):
            write_atomically(path, b"new")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([before] if before is not None else [])


def test_content_is_synced_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), rename(a, b)))
    write_atomically(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace", "fsync"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folders_are_made_and_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_folder_atomically(folder, {"a": b"1", "b": b"2"})
    write_folder_atomically(folder, {"b": b"3"})
    assert contents(folder) == {"b": b"3"}
    assert list(folder.parent.iterdir()) == [folder]
    assert os.access(folder, os.R_OK | os.X_OK)
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode)


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace", "rename"])
@pytest.mark.parametrize("failure", [full_disk, interrupted])
@pytest.mark.parametrize("before", [{"a": b"old", "c": b"old"}, {}, None])
@pytest.mark.parametrize("calls_before", [0, 1])
def test_failed_folder_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    failure: Callable,
    before: dict[str, bytes] | None,
    calls_before: int,
) -> None:
    folder = tmp_path / "folder"
    if before is not None:
        write_folder_atomically(folder, before)
        folder.mkdir(exist_ok=True)
    calls, real = [], getattr(os, call)

    def fails_once(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == calls_before + 1:
            failure()
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails_once)
        try:
            write_folder_atomically(folder, {"a": b"new", "b": b"new"})
        except (OSError, KeyboardInterrupt):
            assert contents(folder) == before if before is not None else not folder.exists()
        else:  # a new folder needs one rename only
            assert (call, before, calls_before) == ("rename", None, 1)
    assert len(list(tmp_path.iterdir())) == folder.exists()


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace", "open", "mkdir"])
@pytest.mark.parametrize("write", [write_atomically, lambda path, content: write_folder_atomically(path, {"a": content})])
def test_the_error_names_what_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, write: Callable
) -> None:
    path = tmp_path / "new" / "thing"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        with pytest.raises(OSError, match="No space") as full:
            write(path, b"new")
    assert (full.value.filename, full.value.filename2) == (str(path), None)


@pytest.mark.parametrize("name", [".", "new", "new/and/below"])
def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("file", errno.ENOTDIR),
        ("file/below", errno.ENOTDIR),
        ("dangling", errno.ENOENT),
        ("dangling/below", errno.ENOENT),
        ("circle/below", errno.ELOOP),
        ("x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, number: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match=os.strerror(number)) as refused:
        check_writable(tmp_path / name)
    assert (refused.value.errno, refused.value.filename) == (number, str(tmp_path / name))


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_is_noticed_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space"):
        check_writable(tmp_path / "new")
