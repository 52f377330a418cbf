"""One warm Spark session for many short jobs: `python -m marketflow.lake.job_host --socket PATH`.

A backfill of a day is a hundred jobs of a few seconds, each of which would first start a JVM for ten. The host runs
the same programs of spark_jobs/ with the same arguments, one at a time, in one process whose session stays. It is
started by the first task that asks (see `job_client`) and leaves by itself

- when nobody has asked for three minutes, or after a hundred jobs;
- after a job that failed otherwise than by a held lock: its session may be in any state;
- at once, with its JVM, when the task that waits for the job goes away: a job that is cut short is repeated whole;
- before a job, when the project's code is newer than the process: the one who asks then starts another.

The catalog's cache is off in such a session (`session.keep`), so that each job sees the tables as they are.

The protocol is a JSON object a line. Asked: `{"script": …, "arguments": […]}`. Answered: any number of `{"line": …}`,
then `{"status": exit status}`, or `{"stale": true}` alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from marketflow.paths import PROJECT_FOLDER

# longer than a run of Dag advance, which has the slot between two hours of a backfill: 96 s beside one, measured
IDLE_S = 180.0
MOST_JOBS = 100
EXIT_BUSY = 75
_END = "\x00the job has ended"
_DRAIN_S = 30.0


class Output:
    """Everything that is written to this process's standard output and error, the JVM's too, goes to whoever asks."""

    def __init__(self) -> None:
        """Puts a pipe in place of both."""
        self._reader, writer = os.pipe()
        self._log = os.dup(1)
        self._lock = threading.Lock()
        self._client: socket.socket | None = None
        self._sent = threading.Event()
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(writer)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        with os.fdopen(self._reader, errors="replace") as lines:
            for line in lines:
                text, mark, _ = line.rstrip("\n").partition(_END)
                with self._lock:
                    if self._client is None:
                        os.write(self._log, line.encode())
                    elif text or not mark:
                        tell(self._client, line=text)
                if mark:
                    self._sent.set()

    @contextlib.contextmanager
    def to(self, client: socket.socket) -> Iterator[None]:
        """While the block runs. What was written in it has been sent when it ends."""
        with self._lock:
            self._client = client
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # what was written before this mark has been sent when the pump comes to it
            self._sent.clear()
            os.write(1, f"{_END}\n".encode())
            self._sent.wait(_DRAIN_S)
            with self._lock:
                self._client = None


def tell(client: socket.socket, **message: object) -> None:
    """One line of the protocol; a client that is gone is seen elsewhere."""
    with contextlib.suppress(OSError):
        client.sendall(json.dumps(message).encode() + b"\n")


def run(script: str, arguments: Sequence[str]) -> int:
    """The program's exit status, as if it had been started by itself."""
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # whatever it is, the caller's process would have ended by it
        traceback.print_exc()
        return 1
    return 0


def newest_code() -> float:
    """When the library or a job was changed last, seconds since the epoch."""
    folders = (PROJECT_FOLDER / "marketflow", PROJECT_FOLDER / "spark_jobs")
    return max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))


def _end_with(client: socket.socket, done: threading.Event) -> None:
    """Ends this process and its JVM when the client goes away before its job is done."""
    while not done.is_set():
        readable, _, _ = select.select([client], [], [], 0.2)
        if readable and not done.is_set() and not client.recv(1):
            os.killpg(os.getpgid(0), signal.SIGKILL)


def serve(listening: socket.socket, output: Output, idle_s: float, most_jobs: int, close: Callable[[], None]) -> None:
    """Jobs, one after the other, until there is a reason to leave; `close` is called before the last answer."""
    from marketflow.lake import session

    session.keep()
    began = time.time()
    for number in range(1, most_jobs + 1):
        listening.settimeout(idle_s)
        try:
            client, _ = listening.accept()
        except TimeoutError:
            return
        client.settimeout(None)
        with client, client.makefile() as asked:
            wish = json.loads(asked.readline() or "null")
            if wish is None:
                continue
            if newest_code() > began:
                close()
                tell(client, stale=True)
                return
            done = threading.Event()
            watcher = threading.Thread(target=_end_with, args=(client, done), daemon=True)
            watcher.start()
            with output.to(client):
                status = run(wish["script"], wish["arguments"])
            done.set()
            watcher.join()
            session.tidy()
            last = number == most_jobs or status not in (0, EXIT_BUSY)
            if last:
                close()
            tell(client, status=status)
        if last:
            return


def main() -> None:
    """Listen, serve, leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", type=Path, required=True, help="path of the Unix socket")
    parser.add_argument("--idle-s", type=float, default=IDLE_S, help="leave after so long without a job")
    parser.add_argument("--jobs", type=int, default=MOST_JOBS, help="leave after so many")
    asked = parser.parse_args()
    output = Output()
    # a job started by itself finds its own folder there
    sys.path.insert(0, str(PROJECT_FOLDER / "spark_jobs"))
    with socket.socket(socket.AF_UNIX) as listening:
        asked.socket.unlink(missing_ok=True)
        listening.bind(str(asked.socket))
        listening.listen(16)

        def close() -> None:
            """Whoever asks from now on finds no host, and starts another."""
            asked.socket.unlink(missing_ok=True)
            listening.close()

        try:
            serve(listening, output, asked.idle_s, asked.jobs, close)
        finally:
            close()
    # Spark's JVM ends with its group
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
