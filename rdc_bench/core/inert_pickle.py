"""Reading pickles without running anything that they ask for.

A pickle is a program: it names functions and calls them. Here a table of *stand-ins* answers the few names that a format needs;
every other name is refused, and the refusal says which it was. A stand-in must build plain data and nothing else, and must have
no attribute that a pickle could set, so that one file cannot change how the next one is read.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

#: What a pickle may ask for, as (module, name), and what it gets instead.
StandIns = Mapping[tuple[str, str], object]

#: Tuples that one pickle may build. Hashing a tuple recurses into it, so a deep enough one as a key would overflow the stack;
#: a depth below this does not, and a checkpoint of a thousand tensors needs a tenth of it.
MOST_TUPLES = 50_000


class Function(NamedTuple):
    """A stand-in for a function. A named tuple, because a pickle can set the attributes of a function but not of a tuple."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """What the function makes of its arguments."""
        return self.call(*arguments)


def load_inert(
    file: BinaryIO,
    size: int,
    stand_ins: StandIns,
    *,
    persistent: Callable[[Any], Any] | None = None,
    encoding: str = "ASCII",
) -> Any:
    """The next pickle in ``file``, which is read up to its end and no further.

    Args:
        size: bytes that the file has; an honest pickle needs no memo index beyond it.
        persistent: what to make of persistent ids; None refuses them. encoding: of text that Python 2 wrote.
    Raises: whatever the damaged or hostile part of the file leads to; all of it derives from ``Exception``.
    """
    start = file.tell()
    _check_opcodes(file, size)
    file.seek(start)
    return _InertUnpickler(file, stand_ins, persistent, encoding).load()


def one_line(error: Exception) -> str:
    """What an error says, as one printable line: parts of it may have been taken from a hostile file."""
    text = " ".join((str(error) or type(error).__name__).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]


def encode(text: str, encoding: str) -> bytes:
    """Stand-in for ``_codecs.encode``: Python 3 writes bytes this way under protocols that Python 2 can read."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, stand_ins: StandIns, persistent: Callable[[Any], Any] | None, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._stand_ins = stand_ins
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        asked = (module.replace("numpy._core", "numpy.core"), name)
        if asked not in self._stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._stand_ins[asked]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to an object outside of itself")
        return self._persistent(pid)


def _check_opcodes(file: BinaryIO, size: int) -> None:
    """Refuse what the unpickler does unasked: reserve memory that a file only claims to need, look into copyreg's cache."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, int) and argument > size and opcode.name.endswith("PUT"):
            raise pickle.UnpicklingError(f"its memo index is {argument}")
        if isinstance(argument, int) and argument > size and opcode.name == "FRAME":
            raise pickle.UnpicklingError(f"a part of it claims {argument} bytes")
        if opcode.name.startswith("EXT"):
            raise pickle.UnpicklingError(f"it asks for extension {argument}")
        tuples += "TUPLE" in opcode.name or opcode.name == "FROZENSET"
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError(f"it builds more than {MOST_TUPLES} tuples")
