"""Writing files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Raise the ``OSError`` that writing into ``folder`` would raise, as far as one small file can tell; leave nothing behind.

    A folder that is not there is not made: the nearest one above it is tried.
    """
    with _named(folder), tempfile.TemporaryFile(dir=_nearest(folder)) as file:
        file.write(b"written")
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a kill or a full disk at any instant leaves the old file or the new one.

    A temporary file in the same folder is written, synced and renamed; the folder is synced so that the rename survives too.

    Raises: ``OSError``, whose ``filename`` is ``path``.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync(path.parent)


def write_folder_atomically(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make ``folder`` hold the files ``contents`` (name → bytes) and nothing else, or leave it as it was.

    The files are written into a temporary folder beside it, which then takes its name. What ``folder`` held before is moved
    aside first and deleted last; a kill between the two moves leaves it whole, beside the new one, under a hidden name.

    Raises: ``OSError``, whose ``filename`` is ``folder``.
    """
    folder = folder.resolve()
    with _named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        new, old = temporary / "new", temporary / "old"
        try:
            new.mkdir()
            for name, content in contents.items():
                write_atomically(new / name, content)
            if folder.exists():
                os.rename(folder, old)
            try:
                os.rename(new, folder)
            except BaseException:
                if old.exists():
                    os.rename(old, folder)
                raise
            _sync(folder.parent)
        finally:
            if folder.exists() or not old.exists():  # else moving it back failed, and this is the only copy
                shutil.rmtree(temporary)


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    try:
        path.lstat()
    except FileNotFoundError:
        return _nearest(path.parent)
    return path


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an ``OSError`` name the path that was asked for: of itself it names a temporary file, or none (a full disk)."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        del error.filename2
        raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
