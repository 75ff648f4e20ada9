"""The restricted reader of checkpoints. Every attack here is shown to work on a reader that trusts the file."""

import collections
import contextlib
import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rdc_bench.conversion.unpickle import StoredObject, StoredTensor, build, read_pickled
from rdc_bench.core.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")

TENSORS = {
    "float": torch.linspace(-1, 1, 24).reshape(2, 3, 4),
    "double": torch.tensor([1.0, float("nan"), float("-inf")], dtype=torch.float64),
    "half": torch.arange(6).half(),
    "bfloat16": torch.arange(6).bfloat16(),
    "long": torch.tensor([2**62, -1]),
    "int": torch.tensor([1, 2], dtype=torch.int32),
    "short": torch.tensor([-3], dtype=torch.int16),
    "char": torch.tensor([-3], dtype=torch.int8),
    "byte": torch.tensor([255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
    "slice": torch.arange(12.0)[3:9:2],
    "parameter": nn.Parameter(torch.ones(2), requires_grad=False),
}


def zipped(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def stream(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


WRITERS = {"zip": zipped, "stream": stream, "pickle": pickle.dumps}


def read(tmp_path: Path, raw: bytes):
    path = tmp_path / "checkpoint"
    path.write_bytes(raw)
    return read_pickled(path)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_tensors_come_back_bit_by_bit(tmp_path: Path, write) -> None:
    loaded = read(tmp_path, write({"tensors": TENSORS, "again": TENSORS["float"], "epoch": 3, "accuracy": np.float64(0.25)}))
    assert (loaded["epoch"], loaded["accuracy"]) == (3, 0.25)
    assert torch.equal(build(loaded["again"]), TENSORS["float"])
    for name, expected in TENSORS.items():
        got = build(loaded["tensors"][name])
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
        assert got.contiguous().view(-1).view(torch.uint8).equal(expected.detach().contiguous().view(-1).view(torch.uint8)), (
            name
        )


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_state_dicts_with_their_version(tmp_path: Path, write) -> None:
    state = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()
    assert state._metadata
    loaded = read(tmp_path, write(state))
    assert list(loaded) == list(state)
    assert all(torch.equal(build(loaded[key]), state[key]) for key in state)


def test_checkpoints_of_many_protocols(tmp_path: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        loaded = read(tmp_path, pickle.dumps({"t": TENSORS["float"]}, protocol=protocol))
        assert torch.equal(build(loaded["t"]), TENSORS["float"])


# Attacks. A payload is an object whose pickle calls a function; `touch` leaves a file behind.


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class CallsInState:
    """A dict that is harmless itself, with a call in the attributes that are set on it afterwards."""

    def __init__(self, payload) -> None:
        self.payload = payload

    def __reduce__(self):
        return collections.OrderedDict, (), {"attribute": self.payload}


class TensorWithHooks:
    """A tensor whose backward hooks are a payload."""

    def __init__(self, payload) -> None:
        self.payload = payload

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(2).storage(), 0, (2,), (1,), False, self.payload)


def system(witness: Path) -> Calls:
    return Calls(os.system, f"touch {witness}")


class Found:
    """Pickles as ``getattr(__import__("os"), "system")``, whose result is called in turn."""

    def __reduce__(self):
        return getattr, (Calls(__import__, "os"), "system")

    def __call__(self) -> None: ...


def in_a_storage(witness: Path) -> Calls:
    """A tensor's storage, whose bytes are a checkpoint of their own."""
    return Calls(torch.storage._load_from_bytes, stream(system(witness)))


def in_a_storage_twice(witness: Path) -> Calls:
    return Calls(torch.storage._load_from_bytes, stream(in_a_storage(witness)))


def trusting(raw: bytes) -> None:
    """Read as a careless user does."""
    if raw.startswith(b"PK") or raw.startswith(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)):
        torch.load(io.BytesIO(raw), weights_only=False)
    else:
        pickle.loads(raw)


PAYLOADS = {
    "system": system,
    "eval": lambda witness: Calls(eval, f"open({str(witness)!r}, 'w').close()"),
    "getattr": lambda witness: Calls(Found(), f"touch {witness}"),
    "in a list in a dict": lambda witness: {"ema": {"weight": TENSORS["float"], "extra": [(system(witness),)]}},
    "as a key": lambda witness: {"weight": TENSORS["float"], system(witness): 1},
    "in attributes": lambda witness: CallsInState(system(witness)),
    "in a tensor": lambda witness: {"weight": TensorWithHooks(system(witness))},
    "in a storage": lambda witness: {"weight": in_a_storage(witness)},
    "in a storage twice": lambda witness: {"weight": in_a_storage_twice(witness)},
}


ASKED = r"posix\.system|nt\.system|__builtin__\.\w+|builtins\.\w+|torch\.storage\._load_from_bytes"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_payloads_are_refused_and_do_not_run(tmp_path: Path, payload, write) -> None:
    witness = tmp_path / "ran"
    raw = write(payload(witness))
    with pytest.raises(UserError, match=rf"checkpoint: refused, .*\(it asks for ({ASKED})\)$"):
        read(tmp_path, raw)
    assert not witness.exists()
    with contextlib.suppress(Exception):  # an attack may break what comes after it
        trusting(raw)
    assert witness.exists(), "this attack attacks nothing"


class Outside(pickle.Pickler):
    """Refers to ``"outside"`` by a persistent id that is a payload."""

    def __init__(self, file: io.BytesIO, payload: object) -> None:
        super().__init__(file, protocol=2)
        self.payload = payload

    def persistent_id(self, obj: object) -> object:
        return self.payload if obj == "outside" else None


def outside(payload: object) -> bytes:
    file = io.BytesIO()
    Outside(file, payload).dump({"weight": "outside"})
    return file.getvalue()


def repacked(raw: bytes, change: dict[str, bytes], **options: int) -> bytes:
    """A zip archive with some entries changed or added (names are those inside the archive's folder)."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(file, "w", **options) as new:
        entries = {name: old.read(name) for name in old.namelist()}
        for name, content in (entries | {f"archive/{name}": content for name, content in change.items()}).items():
            new.writestr(name, content)
    return file.getvalue()


def headers(data: bytes, keys: list[str], tail: bytes = b"") -> bytes:
    """The older stream around a pickle of data."""
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, protocol=2)
    start = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
    return start + system + data + pickle.dumps(keys, protocol=2) + tail


SMALL = zipped({"weight": torch.ones(3)})


@pytest.mark.parametrize(
    "wrap",
    [lambda data: data, lambda data: headers(data, []), lambda data: repacked(SMALL, {"data.pkl": data})],
    ids=["pickle", "stream", "zip"],
)
def test_payloads_in_a_persistent_id(tmp_path: Path, wrap) -> None:
    witness = tmp_path / "ran"
    raw = wrap(outside(system(witness)))
    with pytest.raises(UserError, match=rf"asks for ({ASKED})\)$"):
        read(tmp_path, raw)
    assert not witness.exists()
    with contextlib.suppress(Exception):
        trusting(raw)
    assert witness.exists(), "this attack attacks nothing"


@pytest.mark.parametrize(
    "pid",
    [
        "../../../etc/passwd",
        7,
        ("storage", torch.FloatStorage, "0", "cpu", 2**40),
        ("storage", torch.FloatStorage, "0", "cpu", -1),
        ("storage", torch.FloatStorage, "0", "cpu", True),
        ("storage", torch.FloatStorage, 0, "cpu", 3),
        ("storage", torch.FloatStorage, "../../../etc/passwd", "cpu", 3),
        ("storage", torch.FloatStorage, "1", "cpu", 3),
        ("storage", torch.FloatStorage, "0", "cpu", 4),
        ("storage", torch.DoubleStorage, "0", "cpu", 3),
        ("storage", "torch.FloatStorage", "0", "cpu", 3),
        ("storage", torch.FloatStorage, "0", "cpu", 3, ("view", 0, 1)),
        ("module", torch.FloatStorage, "source", "code"),
    ],
    ids=str,
)
def test_persistent_ids_that_are_no_storage_of_the_archive(tmp_path: Path, pid: object) -> None:
    with pytest.raises(UserError, match=r"persistent id|claims|lacks"):
        read(tmp_path, repacked(SMALL, {"data.pkl": outside(pid)}))
    with pytest.raises(UserError, match="refused"):
        read(tmp_path, headers(outside(pid), ["0"], struct.pack("<q", 3) + torch.ones(3).numpy().tobytes()))


def test_archives_that_torch_does_not_write(tmp_path: Path) -> None:
    ones = torch.ones(3).numpy().tobytes()
    assert torch.equal(build(read(tmp_path, repacked(SMALL, {"data/0": ones}))["weight"]), torch.ones(3))
    wrong = {
        "compressed": repacked(SMALL, {}, compression=zipfile.ZIP_DEFLATED),
        "claims 3 numbers": repacked(SMALL, {"data/0": ones[:-1]}),
        "little-endian": repacked(SMALL, {"byteorder": b"big"}),
        "has 2": repacked(SMALL, {"../../data.pkl": b""}),
        "CRC": SMALL.replace(ones, ones[:-1] + b"\0"),
        "has 0": repacked(SMALL, {}).replace(b"data.pkl", b"dat_.pkl"),
        "not a zip file": SMALL[:-40],
    }
    for message, raw in wrong.items():
        with pytest.raises(UserError, match=rf"refused, .*{message}"):
            read(tmp_path, raw)


def test_entries_that_overlap(tmp_path: Path) -> None:
    """Each storage holds the entries of all later ones: together they are many times the file's size."""
    entries: list[zipfile.ZipInfo] = []
    inner = bytes(1000)
    for i in range(20):
        entry = zipfile.ZipInfo(f"archive/data/{i}")
        entry.file_size = entry.compress_size = len(inner)
        entry.CRC = zlib.crc32(inner)
        entries.append(entry)
        inner = entry.FileHeader() + inner
    for entry in entries:
        entry.header_offset = len(inner) - len(entry.FileHeader()) - entry.file_size
    pids = [("storage", torch.ByteStorage, str(i), "cpu", entry.file_size) for i, entry in enumerate(entries)]
    file = io.BytesIO(inner)
    with zipfile.ZipFile(file, "a") as archive:
        for entry in entries:
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
        archive.writestr("archive/data.pkl", outside(pids[0]))
    assert read(tmp_path, file.getvalue())["weight"].numel == 1000
    with zipfile.ZipFile(file, "a") as archive:
        del archive.NameToInfo["archive/data.pkl"], archive.filelist[-1]
        several = b"".join(outside(pid)[2:-1] for pid in pids)
        archive.writestr("archive/data.pkl", b"\x80\x02]" + b"(" + several + b"e.")
    with pytest.raises(UserError, match="overlap"):
        read(tmp_path, file.getvalue())


def asks_for(module: str, name: str) -> bytes:
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, (2,), (1,)),
        (0, (4,), (1,)),
        (0, (2, 2), (2, 1)),
        (2, (2,), (1,)),
        (0, (3,), (2,)),
        (0, (10**9,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (2**70,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, [2], [1]),
        (0, (2.0,), (1,)),
        (True, (2,), (1,)),
        ("0", (2,), (1,)),
    ],
    ids=str,
)
def test_tensors_beyond_their_storage(tmp_path: Path, arguments: tuple) -> None:
    class Tensor:
        def __reduce__(self):
            offset, size, stride = arguments
            return torch._utils._rebuild_tensor_v2, (torch.ones(3).storage(), offset, size, stride, False, {})

    with pytest.raises(UserError, match="refused"):
        read(tmp_path, pickle.dumps({"weight": Tensor()}))


@pytest.mark.parametrize(
    "raw",
    [
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"cos\nsystem\n)\x81.",
        b"\x8c\x02os\x8c\x06system\x93)}\x92.",
    ],
    ids=["INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"],
)
def test_every_opcode_that_calls_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(UserError, match=r"asks for os\.system\)$"):
        read(tmp_path, b"\x80\x04" + raw)


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extension_codes_are_refused(tmp_path: Path, opcode: bytes) -> None:
    with pytest.raises(UserError, match="extension 1"):
        read(tmp_path, b"\x80\x02" + opcode + b".")


@pytest.mark.parametrize("name", ["OrderedDict.__init__", "OrderedDict.fromkeys.__self__", "__builtins__", ""])
def test_attributes_of_allowed_names_are_refused(tmp_path: Path, name: str) -> None:
    raw = b"\x80\x04\x8c\x0bcollections\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(UserError, match=rf"asks for collections\.{name}\)$"):
        read(tmp_path, raw)


ALLOWED = [
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch.storage", "_load_from_bytes"),
    ("torch", "FloatStorage"),
    ("torch.nn.modules.container", "ModuleDict"),
    ("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ("numpy", "dtype"),
    ("__builtin__", "set"),
]


@pytest.mark.parametrize("asked", ALLOWED, ids=str)
@pytest.mark.parametrize(
    "state", [b"}X\x04\x00\x00\x00callK\x01s", b"N}X\x04\x00\x00\x00callK\x01s\x86"], ids=["dict", "slots"]
)
def test_stand_ins_cannot_be_changed(tmp_path: Path, asked: tuple[str, str], state: bytes) -> None:
    with pytest.raises(UserError, match="refused"):
        read(tmp_path, asks_for(*asked) + state + b"b.")
    assert torch.equal(build(read(tmp_path, pickle.dumps({"t": torch.ones(2)}))["t"]), torch.ones(2))


def test_a_name_cannot_forge_a_second_line(tmp_path: Path) -> None:
    name = "system\n\x1b[2Jerror: all is well"
    raw = b"\x80\x04\x8c\x02os\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(UserError) as refused:
        read(tmp_path, raw)
    assert str(refused.value).isprintable()


def test_deep_tuples_are_refused_before_they_are_hashed(tmp_path: Path) -> None:
    """Hashing this key would overflow the stack and kill the process."""
    with pytest.raises(UserError, match="tuples"):
        read(tmp_path, b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.")


def test_huge_claims_are_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    memo, frame = b"\x80\x02}r\xff\xff\xff\xff.", b"\x80\x04\x95" + struct.pack("<Q", 2**35) + b"}."
    for raw, message in ((memo, "memo index is 4294967295"), (frame, "claims 34359738368 bytes")):
        with pytest.raises(UserError, match=message):
            read(tmp_path, raw)
    with pytest.raises(UserError, match="refused"):
        read(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b".")
    with pytest.raises(UserError, match="ends before its numbers"):
        read(tmp_path, headers(outside(("storage", torch.FloatStorage, "0", "cpu", 40)), ["0"], struct.pack("<q", 40)))


def test_source_code_of_persistent_objects_stays_text(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    meta = {"type": "class", "version": 6, "class_name": "Net", "state": {"x": 1}}
    meta["module_src"] = f"open({str(witness)!r}, 'w').close()"
    raw = asks_for("torch_utils.persistence", "_reconstruct_persistent_obj") + pickle.dumps((meta,), protocol=2)[2:-1] + b"R."
    assert read(tmp_path, raw) == StoredObject("Net", {"x": 1})
    assert not witness.exists()


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"\x7fELF" + bytes(100), b"hello world", b"cos\nsystem\n(S'true'\ntR."],
    ids=["empty", "json", "elf", "text", "0"],
)
def test_not_a_checkpoint_at_all(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(UserError, match=r"not a checkpoint; what can be read is an EDM \.pkl"):
        read(tmp_path, raw)


def test_unreadable_paths(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="cannot be read"):
            read_pickled(path)


WHOLE = {name: write({"a": torch.arange(5.0), "b": [torch.ones(2, 2), 1]}) for name, write in WRITERS.items()}


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE)
def test_truncated_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    for length in range(0, len(raw) - 1, 7):
        with pytest.raises(UserError, match=r"checkpoint: (refused|not a checkpoint)"):
            read(tmp_path, raw[:length])


@settings(max_examples=150)
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4))
def test_damage_is_read_or_refused(tmp_path_factory, form: str, where: float, damage: bytes) -> None:
    raw = WHOLE[form]
    at = int(where * len(raw))
    try:
        loaded = read(tmp_path_factory.getbasetemp(), raw[:at] + damage + raw[at + len(damage) :])
    except UserError:
        return
    for value in loaded.values() if isinstance(loaded, dict) else ():
        if isinstance(value, StoredTensor):
            assert build(value).isnan().sum() >= 0  # every element lies in memory that can be read
