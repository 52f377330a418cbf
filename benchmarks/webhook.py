"""A receiver of alerts for benchmarks that run a whole stack: what was posted, and when."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Posted alerts, oldest first."""

    def __init__(self) -> None:
        self.url = ""
        self.posted: list[tuple[datetime, dict[str, Any]]] = []

    def said_since(self, at: datetime) -> list[tuple[str, str]]:
        """(status, key) of what came after `at`."""
        return [(body["status"], body["key"]) for when, body in self.posted if when >= at]

    def open_keys(self) -> set[str]:
        """Alerts that were told and are not over."""
        newest: dict[str, str] = {body["key"]: body["status"] for _, body in self.posted}
        return {key for key, status in newest.items() if status != "resolved"}

    def summary(self) -> dict[str, dict[str, int]]:
        """Key → how often it was told and ended."""
        found: dict[str, Counter[str]] = {}
        for _, body in self.posted:
            found.setdefault(body["key"], Counter())[body["status"]] += 1
        return {key: dict(counts) for key, counts in sorted(found.items())}


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Listening on a free port of this machine until the block ends."""
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            kept.posted.append((datetime.now(UTC), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
