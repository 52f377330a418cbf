"""A backfill's job does the hours of the runs that wait behind it too, and leaves its summary for their tasks.

An hour of a backfill is a job of some seconds, most of which go into planning and the commit. So the task that has the
slot asks which of its Dag's backfilled runs wait for it, gives their hours to its own job, and leaves what the
job said where each of their tasks looks before it starts one.

Why an hour is as true as if its own task had done it: a task that waits for the slot has passed its sensor, and its
hour was written by a job that began later than that. What was left counts only where that job began after the run had
started: a run that was cleared since has started anew, and does its hour itself. Each summary is taken once. A task on
another machine, or of another home, finds nothing and does its hour itself. Where a job of many hours fails, the next
try is of the task's own hour alone: an hour that cannot be written fails its own run and no other's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.interval import of_key

MOST = 8
"""Hours of others in one job: the schedule waits for a job of a backfill, and never for a whole day of it."""
_KEPT_S = 86_400.0


def waiting(ti: Any, grain: str, retries: int) -> dict[str, datetime]:
    """Run → start of its window, of the backfilled runs whose same task waits for the slot; the first ones by time.

    None of them where this is another try of a task that has so many `retries`: what kept the job of many from its
    end, one of them or their number, would keep it again.
    """
    if ti.try_number > ti.max_tries - retries + 1:
        return {}
    states: Mapping[str, Mapping[str, Any]] = ti.get_task_states(dag_id=ti.dag_id, task_ids=[ti.task_id])
    found = {}
    for run_id, tasks in states.items():
        if run_id != ti.run_id and str(tasks.get(ti.task_id)) == "scheduled":
            start = window_of(run_id, grain)
            if start is not None:
                found[run_id] = start
    return dict(sorted(found.items(), key=lambda item: item[1])[:MOST])


def window_of(run_id: str, grain: str) -> datetime | None:
    """What Airflow writes into a partitioned backfill's `backfill__TIME__KEY__RANDOM`; None of any other run."""
    parts = run_id.split("__")
    if parts[0] != "backfill" or len(parts) != 4:
        return None
    try:
        return of_key(parts[2], grain)
    except AirflowFailException:
        return None


def leave(folder: Path, ti: Any, runs: Iterable[str], began: datetime, summary: Any) -> None:
    """Keep for each of these runs' tasks what the job said that began then and wrote their hours too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.glob("*.json"):  # of runs that nobody went on with
        if time.time() - old.stat().st_mtime > _KEPT_S:
            old.unlink(missing_ok=True)
    for run_id in runs:
        place = _place(folder, ti, run_id)
        new = place.with_suffix(".new")
        new.write_text(json.dumps({"run": ti.run_id, "began": began.isoformat(), "summary": summary}))
        new.replace(place)


def take(folder: Path, ti: Any, started: datetime) -> dict[str, Any] | None:
    """What was left for this task by a job that began after its run started: `run`, `began`, `summary`; else None."""
    place = _place(folder, ti, ti.run_id)
    try:
        found: dict[str, Any] = json.loads(place.read_text())
    except FileNotFoundError:
        return None
    place.unlink(missing_ok=True)
    return found if datetime.fromisoformat(found["began"]) > started.astimezone(UTC) else None


def _place(folder: Path, ti: Any, run_id: str) -> Path:
    name = hashlib.sha256("\n".join((ti.dag_id, ti.task_id, run_id)).encode()).hexdigest()[:32]
    return folder / f"{name}.json"
