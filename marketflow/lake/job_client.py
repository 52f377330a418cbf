"""Running a program of spark_jobs/ in the host that keeps a session, which is started where none answers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marketflow.errors import MarketflowError

START_PATIENCE_S = 60.0
# a path of a Unix socket may have some hundred characters only
_NAME = "host-{}.sock"


class JobHostError(MarketflowError):
    """The host went away in the middle of a job, or could not be started."""


def run(
    folder: Path, script: Path, arguments: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]
) -> int:
    """Run it and return its exit status; every line that it writes goes to `say` as it comes.

    `folder` is where the host's socket and log lie. Hosts of different environments are different ones.

    Raises:
        JobHostError: see there. The job may be repeated.
    """
    for _ in range(3):
        begun = False
        with _connection(folder, environment) as host:
            for answer in _answers(host, script, arguments):
                if "status" in answer:
                    return int(answer["status"])
                if "stale" in answer:  # it is older than the code
                    break
                begun = True
                say(answer["line"])
        if begun:
            raise JobHostError(f"the host of Spark jobs ended before {script.stem} was done; see {folder / 'host.log'}")
        # else it left, having waited long enough, as we came
        time.sleep(0.5)
    raise JobHostError(f"three hosts of Spark jobs in turn left before they began; see {folder / 'host.log'}")


def _answers(host: socket.socket, script: Path, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What it says until it ends."""
    with contextlib.suppress(ConnectionError), host.makefile(errors="replace") as answers:
        host.sendall(json.dumps({"script": str(script), "arguments": list(arguments)}).encode() + b"\n")
        for text in answers:
            yield json.loads(text)


@contextlib.contextmanager
def _connection(folder: Path, environment: Mapping[str, str]) -> Iterator[socket.socket]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = json.dumps(sorted(item for item in environment.items() if item[0].startswith(("MARKETFLOW_", "AWS_"))))
    path = folder / _NAME.format(hashlib.sha256(known.encode()).hexdigest()[:16])
    deadline = time.monotonic() + START_PATIENCE_S
    with (folder / "host.lock").open("w") as lock:
        # one of several that find no host starts it
        fcntl.flock(lock, fcntl.LOCK_EX)
        host = _connect(path)
        process = None if host is not None else _start(folder, path, environment)
        while host is None:
            if process is not None and process.poll() is not None:
                raise JobHostError(
                    f"the host of Spark jobs ended with {process.returncode} at once; see {folder / 'host.log'}"
                )
            if time.monotonic() > deadline:
                if process is not None:
                    os.killpg(process.pid, signal.SIGKILL)
                raise JobHostError(f"no host of Spark jobs answers after {START_PATIENCE_S:.0f} s; see {folder}")
            time.sleep(0.1)
            host = _connect(path)
    with host:
        yield host


def _connect(path: Path) -> socket.socket | None:
    host = socket.socket(socket.AF_UNIX)
    try:
        # relative, because of the length a path may have
        with _inside(path.parent):
            host.connect(path.name)
    except (FileNotFoundError, ConnectionRefusedError):
        host.close()
        return None
    return host


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _start(folder: Path, path: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "host.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "marketflow.lake.job_host", "--socket", path.name],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
