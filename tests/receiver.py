"""Real HTTP servers of a test: a receiver of alerts, which keeps what was posted and answers what the test asks for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What arrived, oldest first; `status` is what it answers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 204
        self.arrived: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body in self.arrived]

    def said(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(body.get(name) for name in names) for body in self.bodies]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A free port of this machine, at which the handler answers until the block ends."""
    handler.log_message = lambda *_: None  # type: ignore[method-assign]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listening on a free port of this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if kept.status < 300:
                kept.arrived.append((self.headers["content-type"], body))
            self.send_response(kept.status)
            self.end_headers()

    with serving(Handler) as port:
        kept = Receiver(port)
        yield kept
