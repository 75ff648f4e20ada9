"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rdc_bench.errors import UserError
from rdc_bench.files import write_atomically

LOCK, HOLDER = "lock", "holder.json"


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes out of ``folder``, which is made where it is missing.

    The lock is the operating system's and ends with this process, however that ends. Who holds it stands in a file beside it.

    Args: what: the thing that is locked, for the error.
    Raises: ``UserError`` that says who is there, at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{what}: {_holder(folder)}; wait for it, or stop it") from error
    try:
        holder = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")}
        write_atomically(folder / HOLDER, json.dumps(holder).encode())
        yield
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_bytes())
        return f"process {holder['pid']} on {holder['host']} has been at work on it since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun, or is about to finish
        return "another process is at work on it"
