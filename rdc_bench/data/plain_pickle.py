"""Python 2's and numpy's pickles of plain data: dicts of numbers, text, lists and uint8 arrays.

The names that they need are answered by stand-ins that build uint8 arrays and nothing else
(see :mod:`rdc_bench.core.inert_pickle`).
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from rdc_bench.core.errors import UserError
from rdc_bench.core.inert_pickle import Function, StandIns, encode, load_inert, one_line


def load_plain(raw: bytes, name: str) -> dict[Any, Any]:
    """A pickled dict of numbers, text, lists and uint8 arrays. Text written by Python 2 comes back as bytes.

    Args: name: what to call the pickle in an error.
    Raises: ``UserError`` when it is damaged, is no dict, or asks for anything else.
    """
    try:
        loaded = load_inert(io.BytesIO(raw), len(raw), _STAND_INS, encoding="bytes")
    except Exception as error:  # the unpickler raises whatever the damaged or hostile part of the file leads to
        raise UserError(f"{name}: refused, not a pickle of plain data ({one_line(error)})") from error
    if type(loaded) is not dict:
        raise UserError(f"{name}: refused, holds a {type(loaded).__name__} instead of a dict")
    return {key: value.values if isinstance(value, _Array) else value for key, value in loaded.items()}


class _Array:
    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _uint8_array(data, dtype, shape, "F" if fortran else "C")


class _UInt8:
    __slots__ = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Byte order and alignment, which single bytes do not have."""


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


_STAND_INS: StandIns = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument, which the stand-in of _reconstruct ignores
    ("numpy", "dtype"): Function(_dtype),
    ("numpy.core.multiarray", "_reconstruct"): Function(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): Function(_frombuffer),
    ("_codecs", "encode"): Function(encode),
}
