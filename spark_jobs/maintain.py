"""Keeps every lake table light: compaction of closed partitions, manifests, expiry; with --deep all of it.

    python spark_jobs/maintain.py [--deep] [--table silver.trades ...] [--summary /tmp/maintain.json]

Exit status 75: a table's writer was at work, and nothing else went wrong; the table is left for the next run.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketflow.contracts.tables import LAKE_TABLES, table
from marketflow.errors import BusyError, MarketflowError
from marketflow.lake import maintenance
from marketflow.lake.session import spark
from marketflow.settings import load
from marketflow.stack import deep_runs


def main(arguments: list[str] | None = None) -> int:
    """Print one line per table; the exit status says how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", action="store_true", help="partitions of few files too, and orphans")
    parser.add_argument("--table", nargs="+", choices=[each.qualified for each in LAKE_TABLES], help="only these")
    parser.add_argument("--summary", type=Path, help="file for a JSON list of what was done")
    asked = parser.parse_args(arguments)
    tables = [table(name) for name in asked.table] if asked.table else LAKE_TABLES
    try:
        settings = load()
        session = spark(settings, "maintain")
    except MarketflowError as error:
        print(f"maintain: {error}", file=sys.stderr)
        return error.exit_code
    done = maintenance.maintain_all(session, settings, now=datetime.now(UTC), deep=asked.deep, tables=tables)
    session.stop()
    for each in done:
        if each.error is not None and not isinstance(each.error, (MarketflowError, BusyError)):
            traceback.print_exception(each.error)
    for each in done:
        print(each, flush=True)
    if asked.summary:
        asked.summary.write_text(json.dumps([str(each) for each in done], indent=2))
    failed = [each.table for each in done if each.error is not None]
    if asked.deep and not asked.table:  # a table that was not done is told of by the exit status, and waits a day
        deep_runs.done(settings, deep_runs.LAKE)
    print(f"maintain: {len(done) - len(failed)} tables done, not done: {', '.join(failed) or 'none'}", flush=True)
    return maintenance.exit_code(done)


if __name__ == "__main__":
    sys.exit(main())
