from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

Respond = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty dataset cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RDC_BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], str]]:
    """``serve(respond)`` starts a loopback server that answers every GET with ``respond(handler)``; returns its URL."""
    servers = []

    def start(respond: Respond) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                respond(self)
                self.close_connection = True

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
