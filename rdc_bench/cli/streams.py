"""Standard output and error as they happen to be: in an encoding that lacks some characters, closed, or closed too early."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import select
import sys
import unicodedata
from typing import TextIO

#: What stands for characters of ours where an encoding lacks them. Greek letters are spelt out.
PLAIN = {
    **dict.fromkeys("·–—−", "-"),
    **dict.fromkeys("‘’′", "'"),
    **dict.fromkeys("“”″", '"'),
    **{"…": "...", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt", "²": "^2", "³": "^3", "‖": "||"},
    **{"ε": "eps", "ℓ": "l", "∞": "inf", "→": "->", "⚠": "!"},
}

ERRORS, ASCII = "rdc-bench-plain", "rdc-bench-ascii"


def prepare() -> None:
    """Let both streams take every text: plain characters stand for those that they cannot show.

    Rich draws its lines in ASCII by itself where the encoding is not Unicode's.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # Click takes a stream in ASCII for a misconfigured one, and would write UTF-8 to it.
            plain = codecs.lookup(stream.encoding).name in ("ascii", ASCII) or _c_locale()
            stream.reconfigure(encoding=ASCII if plain else None, errors=ERRORS)


def unread() -> bool:
    """Whether a stream is a pipe that nobody reads any more (``| head``)."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    for stream in _real():
        poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def let_go() -> None:
    """Silence the streams that do not take what is left to write, which Python would complain of at its end."""
    for stream in _real():
        try:
            stream.flush()
        except OSError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, stream.fileno())
            os.close(devnull)


def _real() -> list[TextIO]:
    """The streams that the system knows."""
    found = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a test's, or one that is closed
            stream.fileno()
            found.append(stream)
    return found


def _c_locale() -> bool:
    """Whether the user asked for the locale that has ASCII alone; Python takes it for UTF-8."""
    explicit = os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8")
    return not explicit and os.environ.get("LC_ALL") in ("C", "POSIX")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """What to write for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_substitute, error.object[error.start : error.end])), error.end


def _substitute(character: str) -> str:
    if character in PLAIN:
        return PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK SMALL LETTER "):
        return name.split()[-1].lower()
    if name.startswith("GREEK CAPITAL LETTER "):
        return name.split()[-1].capitalize()
    return character.encode("ascii", "backslashreplace").decode()  # a name stays exact


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII under a name of its own. Codecs are looked up with their names in lower case and underscores."""
    if name.replace("_", "-") != ASCII:
        return None
    real = codecs.lookup("ascii")
    return codecs.CodecInfo(
        real.encode, real.decode, real.streamreader, real.streamwriter, real.incrementalencoder, real.incrementaldecoder, ASCII
    )


codecs.register_error(ERRORS, _plain)
codecs.register(_ascii)
