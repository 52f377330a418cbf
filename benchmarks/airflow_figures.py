"""What Airflow alone costs and how fast it is: its four parts without a run, and a trigger's way to its first task.

On a stack of its own with the simulated exchange:

- two minutes with every Dag paused and no task under way: the processor time of Airflow's four services, their children
  included;
- ten runs of Dag market_stream by hand, one after the other, all else paused (its own schedule goes on): from the
  moment at which the run was queued to the start of its first task, as Airflow's metadata have it;
- a full parse of all Dags, as `airflow dags reserialize` would do it, in a process of its own.

Writes benchmarks/results/airflow.json.

    .venv/bin/python -m benchmarks.airflow_figures
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.orchestration import Stack, say, wait
from benchmarks.results_file import write
from benchmarks.webhook import webhook
from marketflow.paths import PROJECT_FOLDER
from marketflow.stack.backend import backend

SECONDS = 120
TRIGGERS = 10
PARSE = """
import sys, time
sys.path += sys.argv[1:]
began = time.perf_counter()
from airflow.dag_processing.dagbag import DagBag
imported = time.perf_counter()
bag = DagBag(sys.argv[2], bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
print(len(bag.dags), imported - began, time.perf_counter() - imported)
"""


def processor_seconds(stack: Stack) -> dict[str, float]:
    """Service of Airflow → seconds of processor time of its tree so far."""
    found = {}
    for name, status in backend(stack.settings).status().items():
        if name.startswith("airflow-") and status.pid:
            first = psutil.Process(status.pid)
            # user, system and what children took that have ended, of which their parents were told
            found[name] = sum(sum(one.cpu_times()[:4]) for one in (first, *first.children(recursive=True)))
    return found


def idle(stack: Stack) -> dict[str, Any]:
    """Percent of one core."""
    before = processor_seconds(stack)
    time.sleep(SECONDS)
    after = processor_seconds(stack)
    shares = {name: round(100 * (after[name] - before[name]) / SECONDS, 1) for name in sorted(before)}
    return {"seconds": SECONDS, "percent_of_one_core": round(sum(shares.values()), 1), "by_service": shares}


def leave_alone(stack: Stack) -> None:
    """No task under way: what runs comes to its end, what waits in the triggerer is given up.

    A run of a paused Dag is scheduled no further, so its state stays as it is.
    """
    under_way = "select 1 from task_instance where state in ('queued', 'running')"
    wait(lambda: not stack.runs(under_way), "the last task's end", 900)
    stack.runs("update task_instance set state = 'failed' where state = 'deferred' returning 1")
    wait(lambda: not stack.runs(f"{under_way} union all select 1 from trigger"), "an empty triggerer", 300)
    time.sleep(20)


def triggers(stack: Stack) -> dict[str, Any]:
    """Seconds from queued to the first task's start."""
    for number in range(TRIGGERS):
        run = f"figure-{number}"
        stack.airflow("dags", "trigger", "market_stream", "--run-id", run)
        question = "select 1 from dag_run where run_id = %s and state in ('success', 'failed')"
        wait(lambda r=run, q=question: stack.runs(q, r), f"run {run}", 120)
    rows = stack.runs(
        "select extract(epoch from min(t.start_date) - r.queued_at)::float8 from dag_run r join task_instance t "
        "on t.dag_id = r.dag_id and t.run_id = r.run_id where r.run_id like 'figure-%%' "
        "group by r.run_id, r.queued_at order by 1"
    )
    seconds = [row[0] for row in rows]
    return {
        "runs": len(seconds),
        "median_s": round(seconds[len(seconds) // 2], 2),
        "most_s": round(seconds[-1], 2),
    }


def parse(stack: Stack) -> dict[str, Any]:
    """Seconds of the clock."""
    folders = [str(PROJECT_FOLDER / "plugins"), str(PROJECT_FOLDER / "dags")]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *folders], env=stack.environment, capture_output=True, text=True, check=True
    )
    dags, importing, parsing = done.stdout.split()[-3:]
    return {"dags": int(dags), "import_of_airflow_s": round(float(importing), 2), "parse_s": round(float(parsing), 2)}


def main() -> None:
    """Measure, print, write."""
    with (
        tempfile.TemporaryDirectory(prefix="marketflow-airflow-", ignore_cleanup_errors=True) as folder,
        webhook() as hook,
    ):
        Path(folder).chmod(0o755)
        say("starting a stack")
        with Stack(Path(folder) / "home", hook) as stack:
            dags = [row[0] for row in stack.runs("select dag_id from dag where not is_stale")]
            for dag in dags:
                stack.airflow("dags", "pause", dag, "--yes")
            leave_alone(stack)
            say("every Dag is paused, no task is under way")
            result = {"idle": idle(stack)}
            say(str(result))
            stack.airflow("dags", "unpause", "market_stream", "--yes")
            result |= {"queued_to_first_task": triggers(stack), "parse": parse(stack)}
    print(json.dumps(result, indent=1))
    say(f"wrote {write('airflow', result)}")


if __name__ == "__main__":
    main()
