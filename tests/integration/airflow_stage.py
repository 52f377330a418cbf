"""A PostgreSQL of a test's own, which may go away and come back, and what Airflow needs to find it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marketflow.settings import Settings, load
from marketflow.stack import postgres, secrets
from marketflow.stack.servers import free_ports
from marketflow.warehouse import schema


class PostgresServer:
    """One server; `stop` and `start` may be called in turn."""

    def __init__(self, home: Path, **overrides: Any) -> None:
        self.settings: Settings = load(home=home, postgres_port=free_ports(1)[0], **overrides)
        secrets.ensure(self.settings)
        postgres.prepare(self.settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.settings.home / "postgres.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                postgres.command(self.settings), stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        postgres.wait_until_ready(self.settings)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(20)


@contextmanager
def postgres_server(home: Path, **overrides: Any) -> Iterator[PostgresServer]:
    """A running server with roles, databases and the schema."""
    server = PostgresServer(home, **overrides)
    try:
        server.start()
        postgres.bootstrap(server.settings)
        schema.apply(server.settings)
        yield server
    finally:
        server.stop()
        # under a private home the data lies in /var/tmp, where nobody would look for it
        shutil.rmtree(postgres.data_folder(server.settings).parent)


def eventually(condition: Callable[[], Any], what: str, patience_s: float = 60.0) -> Any:
    """The first true answer; a failure after a patience that only a broken program exhausts."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.2)
    return answer
