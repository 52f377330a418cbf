"""Two small producers that can be made to hang, to crash and to change, and a view of them that knows no round.

What there is of a service is asked of the kernel (psutil, by the variables it was started with) and of its port.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request

import psutil

from tests.integration.services_stage import eventually

# Crashes at its start while its flag is there; answers on its port as a producer that is well.
PROGRAM = """
import http.server, os, pathlib, sys, time
if pathlib.Path(os.environ["CRASHES"]).exists():
    print("the venue refused the key", flush=True)
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = {"last_message_timestamp_seconds": time.time(), "loop_quiet_seconds": 0.1, "overdue_seconds": 0.0}
        self.send_response(200)
        self.end_headers()
        for name, value in told.items():
            self.wfile.write(f'marketflow_{name}{{venue="v"}} {value!r}\\n'.encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SERVICES = ("producer-coinbase", "producer-coingecko")


class Producers:
    """The two services of one world."""

    def __init__(self, world) -> None:
        self.world = world
        settings = world.settings
        ports = (settings.producer_coinbase_metrics_port, settings.producer_coingecko_metrics_port)
        self._ports = dict(zip(SERVICES, ports, strict=True))
        self._read = {name: len(self._log(name)) for name in SERVICES}
        for name in SERVICES:
            self.mend(name)

    def definition(self, name, version=1):
        variables = {
            **{"SERVICE": name, "VERSION": str(version), "PORT": str(self._ports[name])},
            "CRASHES": str(self._flag(name)),
        }
        return self.world.stage.definition(name, PROGRAM, variables=variables, stop_wait_s=1.0)

    def _flag(self, name):
        return self.world.settings.home / f"{name}.crashes"

    def crash(self, name):
        """From now on it fails whenever it is started, and it fails now."""
        self._flag(name).touch()
        self.kill(name)

    def mend(self, name):
        self._flag(name).unlink(missing_ok=True)

    def of(self, name):
        """Its living processes."""
        found = []
        for process in self.world.stage.processes().values():
            try:
                found += [process] if process.environ().get("SERVICE") == name else []
            except psutil.NoSuchProcess:
                continue
        return found

    def kill(self, name):
        for process in self.of(name):
            os.kill(process.pid, signal.SIGKILL)

    def kill_wrapper(self, name):
        for pid, command in self.world.stage.machinery().items():
            if f"marketflow.services.wrapper {name} " in command:
                os.kill(pid, signal.SIGKILL)

    def hang(self, name):
        """Alive, and silent on every port. Whether there was one that answered before."""
        # one that has just begun, or a machine that is busy, needs a moment
        deadline = time.monotonic() + 5
        while not self.answers(name):
            if not self.of(name) or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        (process,) = self.of(name)
        os.kill(process.pid, signal.SIGSTOP)
        eventually(lambda: process.status() == psutil.STATUS_STOPPED, f"{name} to stand still")
        return True

    def answers(self, name):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}/", timeout=1) as answer:
                return bool(answer.read())
        except OSError:
            return False

    def _log(self, name):
        path = self.world.settings.home / "logs" / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def forget_pauses(self, name):
        """What comes from here on is a run of pauses of its own."""
        self._read[name] = len(self._log(name))

    def pauses_s(self, name):
        """Seconds of each pause of its wrapper since then."""
        told = [line for line in self._log(name)[self._read[name] :] if "next start in " in line]
        return [float(line.rsplit("next start in ", 1)[1].split()[0]) for line in told]


def impatient(monkeypatch):
    """Rounds that act within seconds by the rules that they have."""
    from datetime import timedelta

    for name, value in {
        "marketflow_airflow.service_round.SETTLED_S": 0.3,
        "marketflow_airflow.service_round.WELL_AFTER_S": 0.3,
        "marketflow_airflow.service_restarts.SEEN_AGAIN_AFTER": timedelta(seconds=0.2),
        "marketflow_airflow.service_restarts.PAUSES": (timedelta(0), timedelta(seconds=1), timedelta(seconds=2)),
        "marketflow_airflow.feed_watch.ANSWER_WITHIN_S": 1.0,
        "marketflow.stack.sources.scrape.__kwdefaults__": {"timeout_s": 1.0},
        "marketflow.stack.sources.simulator_answers.__kwdefaults__": {"timeout_s": 1.0},
        "marketflow.stack.hanging.STARTED_WITHIN_S": 3.0,
        "marketflow.services.flapping.CALM_AFTER": timedelta(seconds=3),
        "marketflow.services.supervisor_files.HEALTHY_AFTER_S": 5.0,
    }.items():
        monkeypatch.setattr(name, value)
