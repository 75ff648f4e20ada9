"""Reading pickles of plain data without running anything that they ask for.

A pickle is a program: it names functions and calls them. Here the few names that numpy and Python 2 need are answered by
stand-ins that build uint8 arrays and nothing else; every other name is refused. The stand-ins have no attributes that a
pickle could set, so one file cannot change how the next one is read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rdc_bench.errors import UserError


def load_plain(raw: bytes, name: str) -> dict[Any, Any]:
    """A pickled dict of numbers, text, lists and uint8 arrays. Text written by Python 2 comes back as bytes.

    Args: name: what to call the pickle in an error.
    Raises: ``UserError`` when it is damaged, is no dict, or asks for anything else.
    """
    try:
        _check_memo(raw)
        loaded = _PlainUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # the unpickler raises whatever the damaged or hostile part of the file leads to
        raise UserError(f"{name}: refused, not a pickle of plain data ({error})") from error
    if type(loaded) is not dict:
        raise UserError(f"{name}: refused, holds a {type(loaded).__name__} instead of a dict")
    return {key: value.values if isinstance(value, _Array) else value for key, value in loaded.items()}


def _check_memo(raw: bytes) -> None:
    """Refuse a memo index that no honest pickle of this size needs: the unpickler allocates memory up to the index."""
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > len(raw):
            raise pickle.UnpicklingError(f"its memo index is {argument}")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]


class _Array:
    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _uint8_array(data, dtype, shape, "F" if fortran else "C")


class _UInt8:
    __slots__ = ()

    def __setstate__(self, state: tuple) -> None:
        """Byte order and alignment, which single bytes do not have."""


class _Function(NamedTuple):
    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def _uint8_array(data: object, dtype: object, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(dtype, _UInt8) or not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape):
        raise pickle.UnpicklingError("an array is not of uint8, or not of the size it claims")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: object, dtype: object, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.values = _uint8_array(data, dtype, shape, order)
    return array


def _dtype(name: object, *_: object) -> _UInt8:
    if name not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"it holds an array of {name!r}")
    return _UInt8()


def _encode(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes this way under protocols that Python 2 can read."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument, which the stand-in of _reconstruct ignores
    ("numpy", "dtype"): _Function(_dtype),
    ("numpy.core.multiarray", "_reconstruct"): _Function(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): _Function(_frombuffer),
    ("_codecs", "encode"): _Function(_encode),
}
