"""A run's folder on disk. Files appear whole or not at all; a folder that is not ours is refused, never overwritten.

While a run is going on, its finished shards lie in ``shards/``; at the end they are merged into ``records.parquet`` and
``adversarial.safetensors``, whose SHA-256 the manifest then carries.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from safetensors import SafetensorError

from rdc_bench.errors import UserError, in_words
from rdc_bench.files import write_atomically
from rdc_bench.results.lock import alone
from rdc_bench.results.schema import RECORDS, Manifest

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, TABLE, IMAGES = "run.json", "records.parquet", "adversarial.safetensors"
#: The folder of what is needed until the run is complete.
WORK = "shards"


@dataclass(frozen=True)
class Shard:
    """The finished part of a run: rows of :data:`RECORDS`, and adversarial images by ``model/attack`` with their indices."""

    rows: list[dict]
    images: dict[str, Tensor]


class RunFolder:
    """One run on disk.

    Args: path: ``results/<run id>``. Raises ``UserError`` when the folder holds something else, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether a run is there. Raises ``UserError`` for a folder that exists and is not a run."""
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise UserError(f"{self.path}: not a folder")
        if (self.path / MANIFEST).is_file():
            return True
        if any(path.name != WORK and path.suffix != ".tmp" for path in self.path.iterdir()):  # killed before its manifest
            raise UserError(f"{self.path}: holds files but no {MANIFEST}, so it is no run of rdc-bench; choose another --out")
        return False

    @property
    def complete(self) -> bool:
        """Whether a run is there, and finished."""
        return self.exists and bool(self.manifest().files)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep other processes from working on the run. Raises ``UserError`` that says who does."""
        with alone(self.path / WORK, str(self.path)):
            yield

    def manifest(self) -> Manifest:
        """The validated manifest."""
        path = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"cannot be read: {in_words(error)}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: not a manifest of rdc-bench ({field or 'file'}: {first['msg']})") from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        write_atomically(self.path / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")

    def shard(self, name: str) -> Shard | None:
        """A finished shard, or None. A damaged one counts as not finished: its work is done again.

        Raises: ``OSError`` for one that is there and cannot be read.
        """
        try:
            table = pq.read_table(self._shard(name, "parquet"), schema=RECORDS)
            images = _images(self._shard(name, "safetensors").read_bytes())
        except (OSError, pa.ArrowException, SafetensorError) as error:
            if getattr(error, "errno", None) not in (None, errno.ENOENT):  # libraries give no number to a damaged file
                raise
            return None
        return Shard(table.to_pylist(), images)

    def has_shard(self, name: str) -> bool:
        """Whether there is a file for a finished shard, which may yet be found damaged."""
        return self._shard(name, "parquet").is_file()

    def write_shard(self, name: str, shard: Shard) -> None:
        """Store a finished shard; the table comes last and marks it complete."""
        write_atomically(self._shard(name, "safetensors"), _safetensors(shard.images))
        write_atomically(self._shard(name, "parquet"), _parquet(shard.rows))

    def finish(self, rows: list[dict], images: dict[str, Tensor], manifest: Manifest) -> None:
        """Write the merged results, then the manifest that vouches for them, and drop the shards."""
        contents = {TABLE: _parquet(rows), IMAGES: _safetensors(images)}
        for name, content in contents.items():
            write_atomically(self.path / name, content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        self.write_manifest(manifest.model_copy(update={"files": hashes}))
        shutil.rmtree(self.path / WORK, ignore_errors=True)
        for left in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)

    def records(self) -> pd.DataFrame:
        """The rows of a complete run, checked against the manifest's SHA-256."""
        return pq.read_table(io.BytesIO(self._checked(TABLE)), schema=RECORDS).to_pandas()

    def images(self) -> dict[str, Tensor]:
        """The stored adversarial images of a complete run, checked against the manifest's SHA-256."""
        return _images(self._checked(IMAGES))

    def _checked(self, name: str) -> bytes:
        expected = self.manifest().files.get(name)
        if expected is None:
            raise UserError(f"{self.path}: the run is not complete; run its command again to finish it")
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"cannot be read: {in_words(error)}") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise UserError(f"{self.path / name}: SHA-256 differs from the manifest's; the file was damaged or changed")
        return content

    def _shard(self, name: str, ending: str) -> Path:
        return self.path / WORK / f"{name}.{ending}"


def find_runs(results: Path) -> list[RunFolder]:
    """The complete runs under ``results`` (or ``results`` itself when it is one), sorted by name."""
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; `rdc-bench run` makes it")
    if (results / MANIFEST).is_file():
        return [RunFolder(results)]
    runs = [RunFolder(path.parent) for path in sorted(results.glob(f"*/{MANIFEST}"))]
    if not runs:
        raise UserError(f"{results}: holds no run of rdc-bench (no */{MANIFEST}); `rdc-bench run --out {results}` makes one")
    return runs


def _parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=RECORDS), buffer, compression="zstd")
    return buffer.getvalue()


def _images(content: bytes) -> dict[str, Tensor]:
    import safetensors.torch  # imports torch, which tables do without

    return safetensors.torch.load(content)


def _safetensors(images: dict[str, Tensor]) -> bytes:
    """The same bytes whatever the tensors' layout in memory."""
    import safetensors.torch

    return safetensors.torch.save({name: image.contiguous() for name, image in images.items()})
