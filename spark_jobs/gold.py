"""Rewrites hours of a gold table from silver: those asked for, or every dirty one, or both.

`--hours` alone is a backfill and leaves the table's mark alone; with `--dirty` the asked hours are rewritten beside
the dirty ones, and the mark moves.

    python spark_jobs/gold.py --table gold.bars --dirty
    python spark_jobs/gold.py --table gold.price_metrics --hours 2026-11-21T10:00:00Z,2026-11-21T11:00:00Z

gold.price_metrics brings gold.top_movers with it. gold.product_day is made of gold.bars by the day: an hour asked for
means its day, and days that have not ended are left out.

Exit status 75: another process writes the table, come back later.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketflow.errors import MarketflowError
from marketflow.lake import gold, gold_hours
from marketflow.lake.session import end, spark
from marketflow.settings import load

JOBS = {
    "gold.bars": ("gold.bars",),
    "gold.price_metrics": ("gold.price_metrics", "gold.top_movers"),
    "gold.product_day": ("gold.product_day",),
    "gold.trade_features": ("gold.trade_features",),
}


def hours_of(text: str) -> list[datetime]:
    """The hours of a comma-separated list."""
    return [gold_hours.parse(hour.strip()) for hour in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """One session, one commit a table, one JSON line a table on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, choices=sorted(JOBS))
    parser.add_argument("--dirty", action="store_true", help="every hour that silver changed or completed since")
    parser.add_argument("--hours", type=hours_of, default=[], help="whole hours, ISO, separated by commas")
    parser.add_argument("--summary", type=Path, help="file for the JSON list of all lines")
    asked = parser.parse_args(arguments)
    if not asked.dirty and not asked.hours:
        parser.error("say which hours: --dirty, --hours or both")
    lines = []
    try:
        settings = load()
        session = spark(settings, f"gold {asked.table}")
        for name in JOBS[asked.table]:
            done = (
                gold.rewrite_dirty(session, settings, name, also=asked.hours)
                if asked.dirty
                else gold.backfill_hours(session, settings, name, asked.hours)
            )
            lines.append(done.as_dict())
            print(json.dumps(lines[-1]), flush=True)
        end(session)
    except MarketflowError as error:
        print(f"gold: {error}", file=sys.stderr)
        return error.exit_code
    if asked.summary:
        asked.summary.write_text(json.dumps(lines, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
