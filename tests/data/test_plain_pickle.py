from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdc_bench.core.errors import UserError
from rdc_bench.data.plain_pickle import load_plain

ARRAY = np.arange(24, dtype=np.uint8).reshape(4, 6)

#: As Python 2 and its numpy wrote the official files: byte strings, and names as they were then.
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89U\x06\x01\x02\x03\x04\x05\x06tbU\x06labelsq\x08]q\x09(K\x03K\x08eu."
)


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", [ARRAY, np.asfortranarray(ARRAY), ARRAY[0]], ids=["C", "Fortran", "1d"])
def test_plain_data_of_every_protocol(protocol: int, array: np.ndarray) -> None:
    saved = {b"data": array, b"labels": [1, 2], "nested": {"text": ["ä", None, 1.5]}}
    loaded = load_plain(pickle.dumps(saved, protocol=protocol), "batch")
    assert np.array_equal(loaded.pop(b"data"), array)
    assert loaded == {b"labels": [1, 2], "nested": {"text": ["ä", None, 1.5]}}


def test_python_2() -> None:
    loaded = load_plain(PYTHON_2, "batch")
    assert loaded[b"labels"] == [3, 8]
    assert loaded[b"data"].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "hostile",
    [
        lambda command: Calls(os.system, command),
        lambda command: {b"data": ARRAY, b"labels": [Calls(os.system, command)]},
        lambda command: {Calls(os.system, command): 1},
        lambda command: {"a": (1, [{"b": Calls(eval, f"__import__('os').system({command!r})")}])},
        lambda command: Calls(exec, f"import os; os.system({command!r})"),
    ],
    ids=["bare", "in a list", "as a key", "deep", "exec"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_calls_are_refused_and_not_made(hostile: Callable, protocol: int, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    raw = pickle.dumps(hostile(f"touch {witness}"), protocol=protocol)
    with pytest.raises(UserError, match=r"^batch: refused, .*it asks for \w+\.\w+\)$"):
        load_plain(raw, "batch")
    assert not witness.exists()


class PersistentPickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return Calls(os.system, "true") if obj == "outside" else None


def test_persistent_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    with path.open("wb") as file:
        PersistentPickler(file).dump({"a": "outside"})
    with pytest.raises(UserError, match=r"posix\.system|nt\.system"):
        load_plain(path.read_bytes(), "batch")
    with pytest.raises(UserError, match="refused"):
        load_plain(b"\x80\x02}K\x01K\x07Qs.", "batch")


@pytest.mark.parametrize("function", [b"c_codecs\nencode\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"])
@pytest.mark.parametrize("state", [b"}U\x04callK\x01s", b"N}U\x04callK\x01s\x86"], ids=["dict", "slots"])
def test_stand_ins_cannot_be_changed(function: bytes, state: bytes) -> None:
    with pytest.raises(UserError, match="refused"):
        load_plain(b"\x80\x02" + function + state + b"b0}.", "batch")
    assert load_plain(PYTHON_2, "batch")[b"labels"] == [3, 8]


@pytest.mark.parametrize(
    "value",
    [np.zeros(3), np.zeros(3, np.int8), np.array(["a"]), np.array([None]), np.zeros(3, "u1,u1"), np.uint8(3), object()],
    ids=repr,
)
def test_other_objects_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="batch: refused"):
        load_plain(pickle.dumps({"data": value}), "batch")


def test_array_of_another_size_than_it_claims() -> None:
    with pytest.raises(UserError, match="size it claims"):
        load_plain(PYTHON_2.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86"), "batch")


@pytest.mark.parametrize("codec", ["zlib", "utf-16", "rot13"])
def test_other_codecs_are_refused(codec: str) -> None:
    raw = b"\x80\x02}K\x01c_codecs\nencode\nX\x01\x00\x00\x00aX" + struct.pack("<I", len(codec)) + codec.encode() + b"\x86Rs."
    with pytest.raises(UserError, match="codec"):
        load_plain(raw, "batch")


def test_no_dict() -> None:
    with pytest.raises(UserError, match="holds a list"):
        load_plain(pickle.dumps([1]), "batch")


def test_huge_memo_index_is_refused_before_memory_is_allocated_for_it() -> None:
    with pytest.raises(UserError, match="memo"):
        load_plain(b"\x80\x02}r\xff\xff\xff\xff.", "batch")


def test_every_truncation_is_refused() -> None:
    for length in range(len(PYTHON_2)):
        with pytest.raises(UserError, match="batch: refused"):
            load_plain(PYTHON_2[:length], "batch")


@settings(max_examples=300)
@given(st.integers(0, len(PYTHON_2) - 1), st.binary(min_size=1, max_size=6))
def test_damage_gives_a_dict_or_an_error(position: int, damage: bytes) -> None:
    try:
        loaded = load_plain(PYTHON_2[:position] + damage + PYTHON_2[position + len(damage) :], "batch")
    except UserError:
        return
    assert type(loaded) is dict
