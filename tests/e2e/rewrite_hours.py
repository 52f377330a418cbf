"""Rewrites the same hours of several gold tables in one Spark application: TABLE,… HOUR,…"""

from __future__ import annotations

import sys

from marketflow.lake import gold, gold_hours
from marketflow.lake.session import spark
from marketflow.settings import load


def main() -> None:
    tables, hours = (argument.split(",") for argument in sys.argv[1:])
    settings = load()
    session = spark(settings, "rewrite hours")
    for table in tables:
        gold.backfill_hours(session, settings, table, [gold_hours.parse(hour) for hour in hours])
    session.stop()


if __name__ == "__main__":
    main()
