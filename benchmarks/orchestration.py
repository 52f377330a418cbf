"""Airflow at work on a whole stack: a backfill of gold beside the schedule and the stream, and what kills do to it.

Starts a stack of its own in a temporary home (simulated exchange, all Dags on), puts a generated history of other
products before it, as if they had been collected, and backfills every hour of it with the three hourly gold Dags and
every day with gold_daily, by `airflow backfill create`. Meanwhile the schedule, the feeds and the stream go on.

    python -m benchmarks.orchestration backfill     24 hours of two products at 50,000 trades a day each, timed
    python -m benchmarks.orchestration kills        48 hours of five products; in its course the scheduler, triggerer,
                                                    the stream's Spark driver, a backfill's and the broker are killed

Then every run has to be green, `verify` clean against the truth of both markets, no key twice in any table of lake or
PostgreSQL, and each kill an alert that arrived by HTTP and was ended. Writes
benchmarks/results/orchestration-<what>.json; exit status 1 where something of this does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.results_file import write
from benchmarks.webhook import Webhook, webhook
from marketflow import settings as configuration
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.contracts.topics import TOPICS
from marketflow.errors import MarketflowError
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.replay import Options, prepared
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.stack.outage import end_offsets
from marketflow.warehouse.connection import connect

DAGS = ("gold_bars", "gold_price_metrics", "gold_trade_features")
PLANS: dict[str, dict[str, Any]] = {
    "backfill": {"hours": 24, "products": ("SOL-USD", "XRP-USD"), "rate": 50_000 / 86_400},
    "kills": {"hours": 48, "products": ("SOL-USD", "XRP-USD", "ADA-USD", "DOGE-USD", "LTC-USD"), "rate": 0.05},
}
VICTIMS = ("airflow-scheduler", "airflow-triggerer", "market-stream", "a Spark job", "kafka")
PATIENCE_S = 3_600.0
BACKFILL_LIMIT_S = 600.0
_IN_HOST = """
select 1 from task_instance join dag_run using (dag_id, run_id)
where dag_run.run_type = 'backfill' and task_instance.state = 'running' and task_instance.pool = 'spark'
    and task_instance.start_date < now() - interval '5 seconds'
"""
_BUSY = """
select 1 from dag_run
where state in ('queued', 'running') and (dag_id in ('advance', 'silver') or dag_id like 'gold%%')
"""


def say(text: str) -> None:
    """With the time of day."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


class Stack:
    """A stack of its own, and the ways to ask it."""

    def __init__(self, home: Path, hook: Webhook) -> None:
        self.home, self.hook = home, hook
        self.environment = {**os.environ, "MARKETFLOW_HOME": str(home), "MARKETFLOW_ALERT_URL": hook.url}
        self.settings: Settings

    def __enter__(self) -> Stack:
        self.must("up")
        self.settings = configuration.load(home=self.home)
        return self

    def __exit__(self, *_: object) -> None:
        say((self.command("down").stdout or "").strip()[-300:])

    def command(self, *arguments: str, module: str = "") -> subprocess.CompletedProcess[str]:
        """The stack's command line, or a module of it."""
        program = [sys.executable, "-m", module] if module else [str(Path(sys.executable).parent / "marketflow")]
        return subprocess.run([*program, *arguments], env=self.environment, capture_output=True, text=True, check=False)

    def must(self, *arguments: str, module: str = "") -> str:
        """The same; the benchmark ends where it fails."""
        done = self.command(*arguments, module=module)
        if done.returncode != 0:
            raise SystemExit(f"{arguments}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def airflow(self, *arguments: str) -> str:
        """An `airflow` command on the running Airflow."""
        return self.must(*arguments, module="marketflow.stack.airflow_command")

    def runs(self, question: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """From Airflow's metadata."""
        with psycopg.connect(self.settings.dsn("airflow", "airflow"), options="-c timezone=UTC") as connection:
            return connection.execute(question, parameters).fetchall()


def wait(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true answer; what is away for a moment has not answered yet."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            if answer := condition():
                return answer
        except (psycopg.OperationalError, MarketflowError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {patience_s:.0f} s for {what}")
        time.sleep(2)


def history(folder: Path, home: Path, plan: dict[str, Any], start: datetime) -> tuple[Path, int]:
    """The messages of days before, and how many trades are in them.

    Their truth is the beginning of that of the market which the home will have.
    """
    out, truth = folder / "history.ndjson", home / "truth"
    arguments = ["--out", str(out), "--truth", str(truth), "--start", start.isoformat(), "--hours", str(plan["hours"])]
    arguments += ["--rate", f"{plan['rate']:.4f}", "--assets", "20", "--poll-interval-s", "60", "--seed", "7"]
    arguments += ["--products", ",".join(plan["products"]), "--no-tape"]
    subprocess.run([sys.executable, "-m", "marketflow.simulator", "capture", *arguments], check=True)
    return out, sum(1 for _ in (truth / "trades.ndjson").open())


def publish_history(settings: Settings, file: Path) -> int:
    """Into the dataset's own topics, with the headers of the time at which they were received.

    Without the heartbeats, which are one a second and product and say nothing that the trades' numbers do not.
    """
    publisher, count = KafkaPublisher(settings), 0
    for message in prepared(file, "coinbase_exchange", Options()):
        if b'"type":"heartbeat"' in message.value:
            continue
        headers = [(name, text.encode()) for name, text in message.headers.items()]
        publisher.publish(message.topic, message.key, message.value, headers)
        count += 1
    publisher.flush(120.0)
    return count


def trades_in_silver(settings: Settings, products: tuple[str, ...]) -> int:
    """How many of the history's."""
    with readers.duckdb(settings) as lake:
        listed = ", ".join(f"'{product}'" for product in products)
        row = lake.execute(f"select count(*) from silver.trades where product_id in ({listed})").fetchone()
    return int(row[0])


def start_backfills(stack: Stack, start: datetime, hours: int) -> None:
    """Every hour with the hourly Dags, every whole day with gold_daily; both ends are inclusive."""
    last = start + timedelta(hours=hours - 1)
    for dag in DAGS:
        stack.airflow(
            "backfill", "create", "--dag-id", dag, "--from-date", start.isoformat(), "--to-date", last.isoformat(),
            "--reprocess-behavior", "completed", "--max-active-runs", "9",
        )  # fmt: skip
    stack.airflow(
        "backfill", "create", "--dag-id", "gold_daily", "--from-date", start.date().isoformat(),
        "--to-date", last.date().isoformat(), "--reprocess-behavior", "completed",
    )  # fmt: skip


def backfilled(stack: Stack) -> Counter[str]:
    """Runs of the backfills by state."""
    return Counter(dict(stack.runs("select state, count(*) from dag_run where run_type = 'backfill' group by state")))


def victim_pid(stack: Stack, name: str) -> int | None:
    """Its own first process; of a job the host that a backfill's hours share."""
    if name != "a Spark job":
        return backend(stack.settings).status()[name].pid
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if "marketflow.lake.job_host" in command and process.environ().get("MARKETFLOW_HOME") == str(stack.home):
                return process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return None


def kill(stack: Stack, name: str) -> dict[str, Any]:
    """Kill -9, then wait until every service runs again and the alert of it is over."""
    if name == "a Spark job":  # the host is idle while the schedule has the slot
        wait(lambda: stack.runs(_IN_HOST), "a job of the backfill")
    pid = wait(lambda: victim_pid(stack, name), f"a process of {name}")
    states, at = backfilled(stack), datetime.now(UTC)
    say(f"kill -9 {name} (pid {pid}), {states['success']} of {states.total()} runs done")
    os.kill(pid, signal.SIGKILL)
    result = {"victim": name, "at": at.isoformat(), "runs_done_before": states["success"]}
    # of a job its task tells, which is tried again: no service has ended
    mine = "task:gold_" if name == "a Spark job" else f"ended:{name}"

    def told(status: str) -> bool:
        return any(what == status and key.startswith(mine) for what, key in stack.hook.said_since(at))

    wait(lambda: told("firing"), f"the alert {mine}", 120)
    wait(lambda: told("resolved"), f"the end of {mine}", 600)
    running = lambda: all(one.state == "running" for one in backend(stack.settings).status().values())  # noqa: E731
    wait(running, "every service", 300)
    result["alert_over_after_s"] = round((datetime.now(UTC) - at).total_seconds(), 1)
    say(f"{name}: alert sent and over after {result['alert_over_after_s']} s")
    return result


def every_dag(stack: Stack, day: datetime) -> dict[str, str]:
    """Each Dag once more by hand, with its form filled in; Dag → the state that its run reached."""
    hour = (day + timedelta(hours=5)).isoformat()
    recent = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=15)
    forms: dict[str, dict[str, Any]] = {
        **{dag: {"partition": hour} for dag in ("silver", *DAGS)},
        "gold_daily": {"partition": day.isoformat()},
        "maintain_lake": {"deep": True},
        "stream_reset": {"approved_by": "the benchmark"},
        "producers": {"service": "producer-coincap", "action": "restart", "reason": "to see it"},
        "backfill_history": {
            "venue": "coinbase_exchange",
            "product": "BTC-USD",
            "what": "trades",
            "start": recent.isoformat(),
            "end": (recent + timedelta(minutes=5)).isoformat(),
        },
    }
    # off by default: by itself, on the history, because its schedule's product has no yesterday on a stack of today
    wish = {"product": "SOL-USD", "start": day.isoformat(), "end": (day + timedelta(days=1)).isoformat()}
    done = stack.command("train_forecast", "", json.dumps(wish), module="marketflow.stack.dag")
    reached = {"train_forecast": "success" if done.returncode == 0 else "failed"}
    for (dag,) in stack.runs("select dag_id from dag where not is_stale and not is_paused order by dag_id"):
        run = f"by-hand-{dag}"
        stack.airflow("dags", "trigger", dag, "--run-id", run, "--conf", json.dumps(forms.get(dag, {})))
        question = "select state from dag_run where run_id = %s and state in ('success', 'failed')"
        reached[dag] = wait(lambda q=question, r=run: stack.runs(q, r), f"Dag {dag}", 900)[0][0]
        say(f"{dag} by hand: {reached[dag]}")
    return reached


def doubled_keys(settings: Settings) -> dict[str, int]:
    """Table → keys that are there more than once; every table of the lake and its copies in PostgreSQL."""
    found: dict[str, int] = {}
    with readers.duckdb(settings) as lake, connect(settings) as connection:
        for table in LAKE_TABLES:
            key = ", ".join(f'"{name}"' for name in table.key)
            statement = f"select count(*) from (select 1 from {table.qualified} group by {key} having count(*) > 1) x"
            found[f"lake {table.qualified}"] = lake.execute(statement).fetchone()[0]
            if table in GOLD_TABLES:
                row = connection.execute(statement).fetchone()
                found[f"postgres {table.qualified}"] = row[0] if row else 0
    return found


def verified(stack: Stack) -> dict[str, Any]:
    """`marketflow verify` of everything, against the market's truth."""
    done = stack.command("verify", "--json")
    if done.returncode != 0:
        say(done.stdout[-3000:] + done.stderr[-2000:])
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        report = {"error": (done.stdout + done.stderr)[-1500:]}
    compared = sum(one["compared"] for one in report.get("comparisons", ()))
    return {"exit_status": done.returncode, "compared": compared, "problems": report.get("problems")}


def in_kafka(settings: Settings) -> int:
    """Messages that the dataset's topics have ever held."""
    names = [topic.full_name(settings.topic_prefix) for topic in TOPICS]
    return sum(end for name in names for end in end_offsets(settings, name).values())


def live(messages: int, seconds: float) -> dict[str, Any]:
    """What the feeds and pollers brought meanwhile."""
    return {"messages": messages, "seconds": round(seconds), "messages_per_s": round(messages / seconds, 1)}


def latencies(stack: Stack) -> dict[str, Any]:
    """From a run's being queued to its first task's start, of scheduled runs."""
    rows = stack.runs(
        "select extract(epoch from min(t.start_date) - r.queued_at)::float8 from dag_run r join task_instance t "
        "on t.dag_id = r.dag_id and t.run_id = r.run_id where r.run_type = 'scheduled' and t.start_date is not null "
        "group by r.dag_id, r.run_id, r.queued_at"
    )
    return spread([row[0] for row in rows])


def waits_for_spark(stack: Stack) -> dict[str, Any]:
    """How long tasks of scheduled runs waited for the slot of pool `spark`, which the backfill's tasks want too."""
    rows = stack.runs(
        "select extract(epoch from t.queued_dttm - t.scheduled_dttm)::float8 from task_instance t "
        "join dag_run r on t.dag_id = r.dag_id and t.run_id = r.run_id "
        "where r.run_type = 'scheduled' and t.pool = 'spark' and t.queued_dttm is not null"
    )
    return spread([row[0] for row in rows])


def spread(seconds: list[float]) -> dict[str, Any]:
    """How many, their median and the longest."""
    if not seconds:
        return {"runs": 0}
    return {"runs": len(seconds), "median_s": round(statistics.median(seconds), 2), "most_s": round(max(seconds), 2)}


def measure(what: str, folder: Path, hook: Webhook) -> tuple[dict[str, Any], list[str]]:
    """The result, and what does not hold."""
    plan, stack = PLANS[what], Stack(folder / "home", hook)
    # whole days, and long enough ago that every hour is closed
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=plan["hours"])
    file, lines = history(folder, stack.home, plan, start)
    say("starting a stack")
    with stack:
        up = time.monotonic()
        count = publish_history(stack.settings, file)
        say(f"{count} messages of history, {lines} trades, are in Kafka")
        wait(lambda: trades_in_silver(stack.settings, plan["products"]) >= lines, "the history in silver")
        # what arrives late is written by the schedule as well; the backfill is not to be measured beside that
        wait(lambda: not stack.runs(_BUSY), "what the schedule makes of the history")
        say("the history is in silver; backfilling")
        began = time.monotonic()
        start_backfills(stack, start, plan["hours"])
        kills = []
        if what == "kills":
            for number, name in enumerate(VICTIMS, 1):
                share = number / (len(VICTIMS) + 2)
                wait(lambda s=share: backfilled(stack)["success"] >= s * backfilled(stack).total() > 0, "the next kill")
                kills.append(kill(stack, name))
        wait(lambda: not set(backfilled(stack)) & {"queued", "running"}, "the backfills' end")
        seconds = round(time.monotonic() - began, 1)
        say(f"backfilled in {seconds} s: {dict(backfilled(stack))}")
        by_hand = every_dag(stack, start) if what == "kills" else {}
        # two publications' time, so that PostgreSQL has what the backfill wrote; and an hour of the feeds
        time.sleep(max(330.0, (3_600 if what == "kills" else 0) - (time.monotonic() - up)))
        wait(lambda: not stack.hook.open_keys(), "every alert to be over", 900)
        states = stack.runs("select dag_id, run_type, state, count(*) from dag_run group by 1, 2, 3 order by 1, 2, 3")
        retried = stack.runs("select count(*) from task_instance where try_number > 1 and state = 'success'")[0][0]
        result = {
            "hours": plan["hours"],
            "products": len(plan["products"]),
            "trades": lines,
            "backfill_runs": dict(backfilled(stack)),
            "backfill_seconds": seconds,
            "kills": kills,
            "dags_by_hand": by_hand,
            "runs": [list(row) for row in states],
            "tasks_that_needed_another_try": retried,
            "queued_to_first_task": latencies(stack),
            "scheduled_waited_for_spark": waits_for_spark(stack),
            "live": live(in_kafka(stack.settings) - count, time.monotonic() - up),
            "alerts": stack.hook.summary(),
            "doubled_keys": {name: number for name, number in doubled_keys(stack.settings).items() if number},
            "verify": verified(stack),
        }
    return result, wrong(what, result)


def wrong(what: str, result: dict[str, Any]) -> list[str]:
    """Sentences."""
    red = [row for row in result["runs"] if row[2] == "failed"]
    found = [f"{row[3]} {row[1]} runs of {row[0]} failed" for row in red]
    if set(result["backfill_runs"]) != {"success"}:
        found.append(f"backfilled runs are {result['backfill_runs']}")
    if result["doubled_keys"]:
        found.append(f"keys are there twice: {result['doubled_keys']}")
    if result["verify"]["exit_status"] != 0:
        found.append("verify is not clean")
    if not result["verify"]["compared"]:
        found.append("verify compared nothing")
    found += [f"Dag {dag} by hand: {state}" for dag, state in result["dags_by_hand"].items() if state != "success"]
    if what == "backfill" and result["backfill_seconds"] > BACKFILL_LIMIT_S:
        found.append(f"it took longer than {BACKFILL_LIMIT_S:.0f} s")
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(PLANS))
    what = parser.parse_args().what
    with (
        tempfile.TemporaryDirectory(prefix="marketflow-orchestration-", ignore_cleanup_errors=True) as folder,
        webhook() as hook,
    ):
        Path(folder).chmod(0o755)
        result, problems = measure(what, Path(folder), hook)
    result["problems"] = problems
    print(json.dumps(result, indent=1, default=str))
    say(f"wrote {write(f'orchestration-{what}', result)}")
    for problem in problems:
        say(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
