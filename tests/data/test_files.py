from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rdc_bench.core.errors import UserError
from rdc_bench.data.files import cache_dir, download

CONTENT = bytes(range(256)) * 5000
Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


def whole(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:300_000])


def cut_in_a_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"1000\r\n" + CONTENT[:100])


def absent(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"no HTTP at all\r\n\r\n")


def test_download(serve: Serve, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    download(serve(whole), target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"here already")
    download("http://127.0.0.1:9/never-asked", target)
    assert target.read_bytes() == b"here already"


@pytest.mark.parametrize("respond", [cut, cut_in_a_chunk, absent, nonsense])
def test_failed_download_leaves_nothing(
    serve: Serve, tmp_path: Path, respond: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    url = serve(respond)
    with pytest.raises(UserError, match=f"cannot download {url}"):
        download(url, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot download"):
        download("http://127.0.0.1:9/file", tmp_path / "file.bin")


def test_folder_that_cannot_be_made(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot download"):
        download(serve(whole), tmp_path / "file" / "file.bin")


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RDC_BENCH_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("RDC_BENCH_CACHE", "")
    assert cache_dir().name == "rdc-bench"
