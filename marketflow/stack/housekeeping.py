"""What the embedded Airflow leaves behind: rows of its metadata database and logs of its tasks, cleaned up by age.

A minute's Dags alone make some ten thousand runs a week. Airflow's own `db clean` deletes them; it is a process of its
own, with this home's settings, because a task may not touch the metadata database. The newest scheduled run of each
Dag stays, whatever its age: its schedule goes on from there. Nothing of marketflow remembers anything in these rows:
what is to do follows from the lake's snapshots and from `ops`.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from marketflow.settings import Settings
from marketflow.stack import airflow

# All that grows with runs. Left out are the Dags, their versions and the rest of what Airflow knows of them.
TABLES = (
    *("dag_run", "task_instance", "task_instance_history", "task_reschedule", "task_state_store", "xcom", "deadline"),
    *("asset_event", "partitioned_asset_key_log", "trigger", "callback", "job", "log", "import_error", "revoked_token"),
)
# rows of one transaction: the scheduler is at work meanwhile
_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was older than the days that are kept."""

    before: datetime
    log_files: int
    log_bytes: int

    def __str__(self) -> str:
        return (
            f"Airflow's rows of before {self.before:%Y-%m-%d %H:%M} UTC were deleted, and {self.log_files} logs of "
            f"tasks ({self.log_bytes / 1024**2:.1f} MB)"
        )


def clean_airflow(settings: Settings, now: datetime) -> Cleaned:
    """Delete what is older than `MARKETFLOW_AIRFLOW_KEEP_DAYS`; safe to run again and beside a running Airflow.

    Raises:
        SetupError: `airflow db clean` failed on a table; the message is Airflow's.
    """
    before = now - timedelta(days=settings.airflow_keep_days)
    airflow.run(
        settings,
        *("db", "clean", "--clean-before-timestamp", before.isoformat(), "--tables", ",".join(TABLES)),
        *("--skip-archive", "--yes", "--error-on-cleanup-failure", "--batch-size", str(_BATCH)),
    )
    return Cleaned(before, *_delete_logs(airflow.home(settings) / "logs", before))


def _delete_logs(folder: Path, before: datetime) -> tuple[int, int]:
    """Delete files that were last written before then, and the folders that are empty by that; how many, of what size.

    The folder of a run that has begun and has not written yet is young, and stays.
    """
    files, size = 0, 0
    border = before.timestamp()
    # the deepest first, so that a folder comes after what is in it. Its own time is asked before anything in it goes
    found = [(path, path.lstat()) for path in folder.rglob("*")]
    for path, status in sorted(found, key=lambda pair: len(pair[0].parts), reverse=True):
        if status.st_mtime >= border:
            continue
        if not stat.S_ISDIR(status.st_mode):
            path.unlink()
            files, size = files + 1, size + status.st_size
        elif not any(path.iterdir()):
            path.rmdir()
    return files, size
