"""A run's folder on disk. Files appear whole or not at all; a folder that is not ours is refused, never overwritten.

While a run is going on, its finished shards lie in ``shards/``; at the end they are merged into ``records.parquet`` and
``adversarial.safetensors``, whose SHA-256 the manifest then carries.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from rdc_bench.errors import UserError
from rdc_bench.files import write_atomically
from rdc_bench.results.schema import RECORDS, Manifest

MANIFEST, TABLE, IMAGES = "run.json", "records.parquet", "adversarial.safetensors"


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
        if any(self.path.iterdir()):
            raise UserError(f"{self.path}: holds files but no {MANIFEST}, so it is no run of rdc-bench; choose another --out")
        return False

    def manifest(self) -> Manifest:
        """The validated manifest."""
        path = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: not a manifest of rdc-bench ({field or 'file'}: {first['msg']})") from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        write_atomically(self.path / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")

    def shard(self, name: str) -> Shard | None:
        """A finished shard, or None. A damaged one counts as not finished: its work is done again."""
        try:
            table = pq.read_table(self._shard(name, "parquet"), schema=RECORDS)
            images = safetensors.torch.load_file(self._shard(name, "safetensors"))
        except (OSError, pa.ArrowException, SafetensorError):
            return None
        return Shard(table.to_pylist(), images)

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
        shutil.rmtree(self.path / "shards", ignore_errors=True)

    def records(self) -> pd.DataFrame:
        """The rows of a complete run, checked against the manifest's SHA-256."""
        return pq.read_table(io.BytesIO(self._checked(TABLE)), schema=RECORDS).to_pandas()

    def images(self) -> dict[str, Tensor]:
        """The stored adversarial images of a complete run, checked against the manifest's SHA-256."""
        return safetensors.torch.load(self._checked(IMAGES))

    def _checked(self, name: str) -> bytes:
        expected = self.manifest().files.get(name)
        if expected is None:
            raise UserError(f"{self.path}: the run is not complete; run its command again to finish it")
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path / name}: cannot be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise UserError(f"{self.path / name}: SHA-256 differs from the manifest's; the file was damaged or changed")
        return content

    def _shard(self, name: str, ending: str) -> Path:
        return self.path / "shards" / f"{name}.{ending}"


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


def _safetensors(images: dict[str, Tensor]) -> bytes:
    """The same bytes whatever the tensors' layout in memory."""
    return safetensors.torch.save({name: image.contiguous() for name, image in images.items()})
