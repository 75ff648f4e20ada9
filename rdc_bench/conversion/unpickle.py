"""Reading PyTorch's checkpoints without running anything in them.

Three formats share one table of stand-ins: ``torch.save``'s zip archive, its older stream of pickles followed by raw bytes, and
a plain pickle, in which each tensor's storage is such a stream in turn. NVlabs' EDM networks are plain pickles of objects that
carry their own source code and ask for it to be executed (``torch_utils.persistence``); here the code stays text, and the
object becomes a :class:`StoredObject` that says what it was called and what was in it.

Tensors come back as :class:`StoredTensor`, a description that :func:`build` turns into a tensor once the unpickler is done: a
real tensor has methods and attributes that a pickle could reach.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from rdc_bench.core.errors import UserError
from rdc_bench.core.inert_pickle import Function, StandIns, encode, load_inert, one_line

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
#: How ``torch.save``'s older format begins: a pickle of this number, then one of the protocol's.
_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM = pickle.dumps(_MAGIC, protocol=2)
_PROTOCOL = 1001


class Storage(NamedTuple):
    """Raw numbers: their type, how many, and their bytes, as a list because they follow later in some formats."""

    dtype: torch.dtype
    numel: int
    held: list[bytes]


class StoredTensor(NamedTuple):
    """A view into a storage, in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class StoredObject(NamedTuple):
    """An object of a class that is not ours: the class's name, and the attributes that the object had."""

    kind: str
    state: Any


class StoredModuleDict:
    """Stand-in for ``ModuleDict``, the one container class of torch that NVlabs' networks are built with."""

    __slots__ = ("state",)

    def __setstate__(self, state: object) -> None:
        self.state = state


def read_pickled(path: Path) -> Any:
    """What a checkpoint holds: plain containers, numbers and text, :class:`StoredTensor` and :class:`StoredObject`.

    Raises: ``UserError`` when it is no checkpoint, is damaged, or asks for anything else; the message names what it asked for.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        with file:
            start = file.read(len(_STREAM))
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if start.startswith(_ZIP):
                return _read_zip(file, size)
            if start == _STREAM:
                return _read_stream(file, size, _STAND_INS)
            if start.startswith(_PICKLE):
                return load_inert(file, size, _STAND_INS)
    except Exception as error:  # whatever the damaged or hostile part of the file leads to
        raise UserError(f"{path}: refused, not a checkpoint of tensors and plain data ({one_line(error)})") from error
    raise UserError(f"{path}: not a checkpoint; what can be read is an EDM .pkl, a .pt or .pth state dict, or .safetensors")


def build(stored: StoredTensor) -> Tensor:
    """The tensor that was described. Shares memory with what was read, so it must not be written to."""
    storage = stored.storage
    if not storage.numel:
        return torch.empty(stored.size, dtype=storage.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        flat = torch.frombuffer(storage.held[0], dtype=storage.dtype, count=storage.numel)
    return flat.as_strided(stored.size, stored.stride, stored.offset)


def _read_zip(file: BinaryIO, size: int) -> Any:
    """``torch.save``'s archive: ``NAME/data.pkl``, whose persistent ids are the entries ``NAME/data/KEY``."""
    with zipfile.ZipFile(file) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise pickle.UnpicklingError(f"a checkpoint's archive has one data.pkl, this one has {len(roots)}")
        order = f"{roots[0]}byteorder"
        if order in archive.namelist() and _entry(archive, order, size) != b"little":
            raise pickle.UnpicklingError("its numbers are not little-endian")
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:
            key, storage = _storage(pid, size)
            if key not in storages:
                storage.held.append(_entry(archive, f"{roots[0]}data/{key}", size))
                _check_length(storage)
                storages[key] = storage
                if sum(len(one.held[0]) for one in storages.values()) > size:
                    raise pickle.UnpicklingError("entries of its archive overlap")
            return storages[key]

        data = _entry(archive, f"{roots[0]}data.pkl", size)
        return load_inert(io.BytesIO(data), len(data), _STAND_INS, persistent=persistent)


def _entry(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    entry = archive.NameToInfo.get(name)
    if entry is None:
        raise pickle.UnpicklingError(f"its archive lacks {name}")
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
        raise pickle.UnpicklingError(f"{name} is compressed or larger than the file, which torch.save never writes")
    return archive.read(entry)


def _read_stream(file: BinaryIO, size: int, stand_ins: StandIns) -> Any:
    """``torch.save``'s older format: three pickles of headers, one of the data, one of the storages' keys, then their bytes."""
    if load_inert(file, size, {}) != _MAGIC or load_inert(file, size, {}) != _PROTOCOL:
        raise pickle.UnpicklingError("it does not begin as torch.save begins")
    system = load_inert(file, size, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("its numbers are not little-endian")
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        key, storage = _storage(pid, size)
        return storages.setdefault(key, storage)

    loaded = load_inert(file, size, stand_ins, persistent=persistent)
    keys = load_inert(file, size, {})
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise pickle.UnpicklingError("its list of storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        (numel,) = struct.unpack("<q", _take(file, 8, size))
        if numel != storage.numel:
            raise pickle.UnpicklingError(f"a storage of {storage.numel} numbers is followed by {numel}")
        storage.held.append(_take(file, numel * storage.dtype.itemsize, size))
        _check_length(storage)
    return loaded


def _take(file: BinaryIO, length: int, size: int) -> bytes:
    """The next bytes of a file; asked for only when it has them, because reading reserves their memory first."""
    if length > size - file.tell():
        raise pickle.UnpicklingError("it ends before its numbers do")
    return file.read(length)


def _storage(pid: Any, size: int) -> tuple[str, Storage]:
    """A storage and its key from a persistent id: ``("storage", type, key, device, number of elements[, view])``."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise pickle.UnpicklingError("a persistent id is not that of a storage")
    _, dtype, key, _, numel = pid[:5]
    if not isinstance(dtype, _StorageType) or not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise pickle.UnpicklingError("a persistent id is not that of a storage")
    if numel * dtype.dtype.itemsize > size:
        raise pickle.UnpicklingError(f"a storage claims {numel} numbers, more than the file has")
    return key, Storage(dtype.dtype, numel, [])


def _check_length(storage: Storage) -> None:
    if len(storage.held[0]) != storage.numel * storage.dtype.itemsize:
        raise pickle.UnpicklingError(f"a storage claims {storage.numel} numbers and has {len(storage.held[0])} bytes")


class _StorageType(NamedTuple):
    dtype: torch.dtype


class _Mapping(dict[Any, Any]):
    """Stand-in for ``OrderedDict``. A state dict carries its version as an attribute, which is of no use here."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore attributes."""


class _NumberType:
    """Stand-in for a ``numpy.dtype`` of single numbers."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError("a number of numpy's is not little-endian")


#: numpy's names of number types, and what :mod:`struct` calls them.
_NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


def _number_type(name: object, *_: object) -> _NumberType:
    if not isinstance(name, str) or name not in _NUMBERS:
        raise pickle.UnpicklingError("it holds numpy data other than single numbers")
    return _NumberType(_NUMBERS[name])


def _number(dtype: object, data: object) -> int | float | bool:
    if not isinstance(dtype, _NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("it holds numpy data other than single numbers")
    return struct.unpack(f"<{dtype.code}", data)[0]


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> StoredTensor:
    if not (isinstance(storage, Storage) and _whole((offset,)) and _whole(size) and _whole(stride)):
        raise pickle.UnpicklingError("a tensor is not described by a storage and whole numbers")
    view = StoredTensor(storage, offset, size, stride)  # type: ignore[arg-type]  # checked above
    numel = math.prod(view.size)
    steps = zip(view.size, view.stride, strict=True)
    last = view.offset + sum((length - 1) * step for length, step in steps) if numel else 0
    # Overlapping elements would let a small file claim a huge tensor.
    if numel > storage.numel or (numel and last >= storage.numel):
        raise pickle.UnpicklingError(f"a tensor of shape {list(view.size)} does not fit its storage of {storage.numel} numbers")
    return view


def _whole(numbers: object) -> bool:
    return isinstance(numbers, tuple) and all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _rebuild_parameter(data: object, *_: object) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise pickle.UnpicklingError("a parameter is not a tensor")
    return data


def _rebuild_storage(raw: object) -> Storage:
    """Stand-in for ``torch.storage._load_from_bytes``, which in torch is a ``torch.load`` of bytes, with all its powers."""
    if not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a storage is not made of bytes")
    # Storages do not contain storages, so this needs the names of storage types only and cannot recurse.
    storage = _read_stream(io.BytesIO(raw), len(raw), _STORAGE_TYPES)
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError(f"a storage holds a {type(storage).__name__}")
    return storage


def _reconstruct(meta: object) -> StoredObject:
    """Stand-in for ``torch_utils.persistence``'s constructor, which would execute ``meta["module_src"]``."""
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("class_name"), str):
        raise pickle.UnpicklingError("a persistent object does not say what class it is of")
    return StoredObject(meta["class_name"], meta.get("state"))


_STORAGE_TYPES: StandIns = {
    ("torch", f"{name}Storage"): _StorageType(dtype)
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}

_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _rebuild_storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _reconstruct,
    ("numpy", "dtype"): _number_type,
    ("numpy.core.multiarray", "scalar"): _number,
    ("_codecs", "encode"): encode,
    ("__builtin__", "set"): set,
}

_STAND_INS: StandIns = {
    **_STORAGE_TYPES,
    **{name: Function(call) for name, call in _CALLS.items()},
    ("collections", "OrderedDict"): _Mapping,
    ("torch.nn.modules.container", "ModuleDict"): StoredModuleDict,
}
