"""Where downloaded datasets are kept, and how they get there."""

from __future__ import annotations

import http.client
import os
import urllib.request
from pathlib import Path

import platformdirs

from rdc_bench.errors import UserError, in_words, is_refusal


def cache_dir() -> Path:
    """The folder for downloaded datasets, in torchvision's layout; ``RDC_BENCH_CACHE`` overrides the platform's default."""
    return Path(os.environ.get("RDC_BENCH_CACHE") or platformdirs.user_cache_dir("rdc-bench"))


def download(url: str, target: Path) -> None:
    """Fetch ``url`` into ``target``, which appears only when it is complete. The caller checks the contents."""
    if target.is_file():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            _fetch(url, partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        reason = in_words(error) if is_refusal(error) else error
        raise UserError(f"cannot download {url}: {reason}") from error


def _fetch(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as response, path.open("wb") as out:
        while block := response.read(1 << 20):
            out.write(block)
        # Reading in blocks, http.client takes a connection that was cut for the end of the file.
        expected = response.headers["Content-Length"]
        if expected is not None and out.tell() != int(expected):
            raise OSError(f"the connection closed after {out.tell():,} of {int(expected):,} bytes")
