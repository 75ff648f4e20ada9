"""The one error that users see: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from typing import TypeGuard


class UserError(Exception):
    """Bad usage or bad input. The command line prints it as one line and exits with code 2."""


class Notice(UserWarning):
    """What a user should know about a result, though nothing is wrong. The command line prints it as one line on stderr."""


_AGAIN = "then give the same command again: what was done is kept"
_ELSEWHERE = "choose another place"
#: What a refusal of the operating system means, and what to do about it, by its number. Some systems lack some of them.
_REFUSALS = {
    getattr(errno, name, None): words
    for name, words in {
        "ENOSPC": ("no space is left on the device", f"make room, {_AGAIN}"),
        "EDQUOT": ("the disk quota is used up", f"make room, {_AGAIN}"),
        "EFBIG": ("the file would be larger than is allowed", f"raise the limit (ulimit -f), {_AGAIN}"),
        "EIO": ("the device failed to read or write", f"see to the disk or the network, {_AGAIN}"),
        "ESTALE": ("the network file system lost the file", f"see to the network, {_AGAIN}"),
        "ENOMEM": ("not enough memory", f"free some, {_AGAIN}"),
        "EMFILE": ("this process has too many files open", f"raise the limit (ulimit -n), {_AGAIN}"),
        "ENFILE": ("the system has too many files open", f"close some, {_AGAIN}"),
        "EACCES": ("permission denied", f"{_ELSEWHERE}, or have its permissions changed"),
        "EPERM": ("the system does not permit it", f"{_ELSEWHERE}, or have its permissions changed"),
        "EROFS": ("the file system can be read only", _ELSEWHERE),
        "ENOENT": ("no such file or folder", "it is misspelt, or was removed meanwhile"),
        "ENOTDIR": ("a part of this path is no folder", _ELSEWHERE),
        "EISDIR": ("is a folder, where a file is needed", _ELSEWHERE),
        "EEXIST": ("something of this name is there already", _ELSEWHERE),
        "ENAMETOOLONG": ("the name is too long", "choose a shorter one"),
        "ELOOP": ("symbolic links lead round in a circle", _ELSEWHERE),
    }.items()
}


def is_refusal(error: BaseException) -> TypeGuard[OSError]:
    """Whether ``error`` tells of the machine or of a path, rather than of a mistake in a program."""
    return isinstance(error, OSError) and error.errno is not None and (error.errno in _REFUSALS or error.filename is not None)


def in_words(error: OSError) -> str:
    """A refusal of the operating system in one line: the path, where it is known, the reason, and what to do."""
    number = error.errno
    reason, advice = _REFUSALS.get(number, (os.strerror(number) if number else first_line(error), ""))
    path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{path}{reason}{advice and '; '}{advice}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, or its type's name where there is none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str) -> UserError:
    """The error for a name that nothing answers to, with the nearest names that would have.

    Args:
        kind: what was looked for, e.g. ``"attack"``. hint: how to list what there is.
    """
    names = {known_name.lower(): known_name for known_name in sorted(known)}
    close = (
        difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5) or [n for n in names if name and name.lower() in n][:3]
    )
    meant = f" Did you mean {' or '.join(repr(names[c]) for c in close[:3])}?" if close else ""
    return UserError(f"unknown {kind} {name!r}.{meant} {hint}")
