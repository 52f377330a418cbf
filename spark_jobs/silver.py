"""Closes hours of ingestion, or moves silver by its own watermarks where no hour is named.

    python spark_jobs/silver.py --close-hour 2026-11-21T10:00:00Z [...] [--table silver.trades ...] [--force]
    python spark_jobs/silver.py

With --force every message of the hours is parsed again even where the counts agree: that is the backfill. A table that
fails stops no other. Exit status 75: another process writes a table, and nothing worse happened; come back later.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyspark.sql import SparkSession

from marketflow.errors import BusyError, MarketflowError
from marketflow.lake import silver
from marketflow.lake.session import end, spark
from marketflow.settings import Settings, load

Line = dict[str, Any]


def hour(text: str) -> datetime:
    """An ISO time as an aware one; without a zone it is UTC."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def close(session: SparkSession, settings: Settings, source: silver.Source, when: datetime, force: bool) -> Line:
    """Close one hour of one table; the schedule advances first, or the hour would be parsed twice."""
    advanced = [] if force else silver.advance(session, settings, source)
    done = silver.close_hour(session, settings, source, when, force=force)
    return {
        "table": done.table,
        "hour": done.hour.isoformat(),
        "rows": sum(commit.accounting.inserted for commit in advanced) + done.inserted,
        "hours": silver.hours_touched((*advanced, *done.commits)),
        "messages": done.messages,
        "items": done.items,
        "missing_before": done.missing_before,
        "inserted": done.inserted,
        "inserted_rejected": done.inserted_rejected,
        "parsed_again": done.parsed_again,
        "snapshot_ids": [commit.snapshot_id for commit in (*advanced, *done.commits)],
    }


def advance(session: SparkSession, settings: Settings, source: silver.Source) -> Line:
    """Move one table by its watermark."""
    commits = silver.advance(session, settings, source)
    return {
        "table": source.table.qualified,
        "messages": sum(commit.accounting.messages for commit in commits),
        "rows": sum(commit.accounting.inserted for commit in commits),
        "hours": silver.hours_touched(commits),
        "snapshot_ids": [commit.snapshot_id for commit in commits],
    }


def attempt(table: str, work: Callable[[], Line]) -> Line:
    """The work's line, or its error's."""
    try:
        return {"status": "ok", **work()}
    except MarketflowError as error:
        status = "busy" if isinstance(error, BusyError) else "failed"
        return {"table": table, "status": status, "error": f"{type(error).__name__}: {error}"}
    except Exception as error:  # kept in the line, and in the exit status: the other tables go first
        traceback.print_exc()
        return {"table": table, "status": "failed", "error": f"{type(error).__name__}: {str(error)[:500]}"}


def exit_code(lines: Sequence[Line]) -> int:
    """1 where a table failed, 75 where one was only busy, else 0."""
    statuses = {line["status"] for line in lines}
    return 1 if "failed" in statuses else BusyError.exit_code if "busy" in statuses else 0


def main(arguments: list[str] | None = None) -> int:
    """Print a JSON line per table and hour; the exit status says how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--close-hour", nargs="+", type=hour, default=[], help="starts of hours, ISO, UTC")
    parser.add_argument("--table", nargs="+", choices=list(silver.SOURCES), default=list(silver.SOURCES))
    parser.add_argument("--force", action="store_true", help="parse again even where the counts agree")
    parser.add_argument("--summary", type=Path, help="file for the JSON list of all lines")
    asked = parser.parse_args(arguments)
    try:
        settings = load()
        session = spark(settings, "silver")
    except MarketflowError as error:
        print(f"silver: {error}", file=sys.stderr)
        return error.exit_code
    lines = []
    for name in asked.table:
        source = silver.SOURCES[name]
        for when in asked.close_hour:
            lines.append(attempt(name, lambda s=source, w=when: close(session, settings, s, w, asked.force)))
        if not asked.close_hour:
            lines.append(attempt(name, lambda s=source: advance(session, settings, s)))
    end(session)
    if asked.summary:
        asked.summary.write_text(json.dumps(lines, indent=2))
    # the line that says what went wrong comes last
    for line in sorted(lines, key=lambda line: line["status"] != "ok"):
        print(json.dumps(line), flush=True)
    return exit_code(lines)


if __name__ == "__main__":
    sys.exit(main())
