"""Moves silver by its own watermarks and rewrites what that made dirty in gold, the open hour included.

One Spark application for all tables: a JVM each would cost more than the work. A table that fails stops no other; the
exit status is 1 after the rest has run, and the summary names it. A table that another process holds is `busy`: with
nothing worse the exit status is 75, come back later.

    python spark_jobs/advance.py --summary /tmp/advance.json

`--days` brings gold's daily tables up to date too, which Dag gold_daily does once a day.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyspark.sql import SparkSession

from marketflow.errors import BusyError, MarketflowError
from marketflow.lake import gold, silver
from marketflow.lake.session import spark
from marketflow.settings import Settings, load

Line = dict[str, Any]


def advance(session: SparkSession, settings: Settings, *, days: bool = False) -> list[Line]:
    """Every silver source, then every gold table (with `days` the daily ones too); a line each, with any error."""
    lines = [_silver_line(outcome) for outcome in silver.advance_all(session, settings).values()]
    for name in (name for name in gold.RECIPES if days or name not in gold.DAILY):
        try:
            lines.append({"status": "ok"} | gold.rewrite_dirty(session, settings, name).as_dict())
        except Exception as error:  # kept in the line, and in the exit status: the other tables go first
            lines.append(_failed(name, error))
    return lines


def _silver_line(outcome: silver.Outcome) -> Line:
    commits = [commit.snapshot_id for commit in outcome.commits]
    accounting = json.loads(outcome.accounting.to_json())
    line = {
        "table": outcome.table,
        "status": "ok",
        "rows": outcome.accounting.inserted,
        "hours": silver.hours_touched(outcome.commits),
        "snapshot_ids": commits,
        "accounting": accounting,
    }
    return line if outcome.error is None else line | _failed(outcome.table, outcome.error)


def _failed(table: str, error: Exception) -> Line:
    if not isinstance(error, BusyError):  # which says all there is to say
        traceback.print_exception(error)
    status = "busy" if isinstance(error, BusyError) else "failed"
    return {"table": table, "status": status, "error": f"{type(error).__name__}: {error}"}


def exit_code(lines: list[Line]) -> int:
    """1 where a table failed, 75 where one was only busy, else 0."""
    statuses = {line["status"] for line in lines}
    return 1 if "failed" in statuses else BusyError.exit_code if "busy" in statuses else 0


def main(arguments: list[str] | None = None) -> int:
    """Print a JSON line per table, write all of them to --summary, and say by the exit status how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", action="store_true", help="the daily tables too")
    parser.add_argument("--summary", type=Path, help="file for the JSON list of all lines")
    asked = parser.parse_args(arguments)
    try:
        settings = load()
        session = spark(settings, "advance")
    except MarketflowError as error:
        print(f"advance: {error}", file=sys.stderr)
        return error.exit_code
    lines = advance(session, settings, days=asked.days)
    session.stop()
    for line in lines:
        print(json.dumps(line), flush=True)
    if asked.summary:
        asked.summary.write_text(json.dumps(lines, indent=2))
    failed = [line["table"] for line in lines if line["status"] != "ok"]
    if failed:
        print(f"advance: not done: {', '.join(failed)}", file=sys.stderr)
    return exit_code(lines)


if __name__ == "__main__":
    sys.exit(main())
