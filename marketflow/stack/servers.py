"""PostgreSQL, Kafka and S3 as plain child processes: what tests use, and what `make up` hands to the supervisor."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings, load
from marketflow.stack import kafka, postgres, s3, secrets

_PR_SET_PDEATHSIG = 1


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago; all are held until the last is found, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def die_with_parent() -> None:
    """In a child, before it becomes what it is to be: the kernel kills it when its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(module: ModuleType, settings: Settings) -> subprocess.Popen[bytes]:
    module.prepare(settings)
    name = module.__name__.rsplit(".", 1)[1]
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - own list
            module.command(settings),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,  # a test that dies leaves nothing behind
            cwd="/" if name == "postgres" else None,
        )


def _stop(
    process: subprocess.Popen[bytes],
    stop_signal: signal.Signals,
    patience_s: float = 20,
    send: Callable[[int, int], None] = os.killpg,
) -> None:
    if process.poll() is None:
        send(process.pid, stop_signal)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def temporary_stack(home: Path, **overrides: Any) -> Iterator[Settings]:
    """Real PostgreSQL, Kafka and S3 on free ports under `home`, with roles, databases, topics and bucket made."""
    names = ("postgres_port", "kafka_port", "kafka_controller_port", "s3_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    settings = load(home=home, **{**ports, **overrides})
    secrets.ensure(settings)
    # what a child process with this home reads
    secrets.write_private(home / "stack.json", json.dumps(ports))
    processes = []
    try:
        for module, stop_signal in ((postgres, signal.SIGINT), (s3, signal.SIGTERM), (kafka, signal.SIGTERM)):
            processes.append((_start(module, settings), stop_signal))
        postgres.wait_until_ready(settings)
        postgres.bootstrap(settings)
        s3.wait_until_ready(settings)
        s3.create_bucket(settings)
        kafka.wait_until_ready(settings)
        kafka.create_topics(settings)
        yield settings
    finally:
        for process, stop_signal in reversed(processes):
            _stop(process, stop_signal)
        # where the home could not be passed by the server's user its data lies elsewhere, and goes with the stack
        if not postgres.data_folder(settings).is_relative_to(settings.home):
            shutil.rmtree(postgres.data_folder(settings).parent)


@contextmanager
def child_process(
    settings: Settings, name: str, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`python arguments` with the stack's settings and `variables` in its environment, until the block ends.

    It writes to `logs/<name>.log` under the home; it is asked to end (SIGTERM), and after a minute ended.
    """
    logs = settings.home / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603 - own list
            [sys.executable, *arguments],
            env={**embedded_environment(settings), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        _stop(child, signal.SIGTERM, patience_s=60, send=os.kill)  # its own children are its to end
