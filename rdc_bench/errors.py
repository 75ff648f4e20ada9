"""The one error that users see: what is wrong, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad usage or bad input. The command line prints it as one line and exits with code 2."""


class Notice(UserWarning):
    """What a user should know about a result, though nothing is wrong. The command line prints it as one line on stderr."""


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
