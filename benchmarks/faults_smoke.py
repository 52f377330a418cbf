"""`make faults-smoke`: kill -9 each part of a whole stack once, and see what it takes to be well again.

Starts a stack of its own in a temporary home (simulated exchange), and for each victim records the seconds from the
kill until every service runs and prices and trades that arrived after the kill are through the stream, then what
`verify` says and which holes are open. Writes benchmarks/results/faults-smoke.json and ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.results_file import write
from marketflow import settings as configuration
from marketflow.errors import MarketflowError
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.warehouse.connection import connect

VICTIMS = ("producer-coinbase", "kafka", "market-stream", "postgres", "airflow-scheduler", "supervisord")
HEAL_TIMEOUT_S = 420.0
# how long a stack must have run before the next kill, so that verify's cut lies after the last one
SETTLE_S = 75.0


def _command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MARKETFLOW_HOME": str(home)}
    program = Path(sys.executable).parent / "marketflow"
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def _victim_pid(settings: Settings, name: str) -> int:
    """The process that does the work: for the stream its driver's JVM parent, for supervisord the daemon."""
    supervisor = backend(settings)
    if name == "supervisord":
        return int(supervisor.client.pid())
    pid = supervisor.status()[name].pid
    if pid is None:
        raise MarketflowError(f"{name} does not run")
    return pid


def _through_since(settings: Settings, since: datetime) -> bool:
    """Whether the bronze queries stood at their topics' end, and a live price was polled, after `since`."""
    with connect(settings) as connection:
        row = connection.execute(
            "select (select bool_and(complete_through > %(since)s) from ops.layer_freshness where layer = 'bronze'), "
            "(select max(polled_at) > %(since)s from live.asset_observation)",
            {"since": since},
        ).fetchone()
    return bool(row and row[0] and row[1])


def _all_run(settings: Settings) -> bool:
    return all(status.state == "running" for status in backend(settings).status().values())


def _heal(settings: Settings, since: datetime) -> float | None:
    """Seconds from `since` until the stack is well; None when it is not within the time given."""
    start = time.monotonic()
    while time.monotonic() - start < HEAL_TIMEOUT_S:
        try:
            if _all_run(settings) and _through_since(settings, since):
                return round((datetime.now(UTC) - since).total_seconds(), 1)
        except (psycopg.Error, MarketflowError):
            pass  # what was killed does not answer yet; the next look tells
        time.sleep(1)
    return None


def _open_holes(settings: Settings) -> list[dict[str, Any]]:
    with connect(settings) as connection:
        cursor = connection.execute(
            "select product_id, first_missing_id, last_missing_id, cause, status "
            "from ops.trade_gap order by detected_at"
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _verify(home: Path) -> dict[str, Any]:
    done = _command(home, "verify", "--json")
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        report = {"error": (done.stdout + done.stderr)[-1500:]}
    return {"exit_status": done.returncode, "report": report}


def _kill(home: Path, settings: Settings, name: str) -> dict[str, Any]:
    pid = _victim_pid(settings, name)
    _say(f"kill -9 {name} (pid {pid}, {' '.join(psutil.Process(pid).cmdline())[:80]})")
    since = datetime.now(UTC)
    os.kill(pid, signal.SIGKILL)
    if name == "supervisord":  # nobody watches the watcher: a person runs `make up` again
        time.sleep(25)
        restarted = _command(home, "up")
        if restarted.returncode != 0:
            _say(restarted.stdout[-2000:] + restarted.stderr[-2000:])
    healed = _heal(settings, since)
    _say(f"{name}: {'not well within the time given' if healed is None else f'well after {healed} s'}")
    time.sleep(SETTLE_S)
    verdict = _verify(home)
    _say(f"{name}: verify ends with {verdict['exit_status']}")
    return {"victim": name, "seconds_to_heal": healed, "verify": verdict, "holes": _open_holes(settings)}


def main() -> None:
    """Start, kill, judge, stop; exit status 1 when one kill was not healed or verify was not clean."""
    victims = sys.argv[1:] or list(VICTIMS)
    with tempfile.TemporaryDirectory(prefix="marketflow-faults-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)
        _say("starting a stack of its own")
        started = _command(home, "up")
        if started.returncode != 0:
            sys.exit(started.stdout[-3000:] + started.stderr[-3000:])
        settings = configuration.load(home=home)
        try:
            time.sleep(SETTLE_S)
            kills = [_kill(home, settings, name) for name in victims]
        finally:
            stopped = _command(home, "down")
            _say(stopped.stdout.strip()[-300:] + stopped.stderr[-300:])
    path = write("faults-smoke", {"kills": kills})
    _say(f"wrote {path}")
    if any(kill["seconds_to_heal"] is None or kill["verify"]["exit_status"] != 0 for kill in kills):
        sys.exit(1)


if __name__ == "__main__":
    main()
