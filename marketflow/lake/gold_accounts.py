"""What became of each hour's trades: in the summary of the commit that wrote the hour, and from there in PostgreSQL.

The commit is the lake's and ops.gold_accounting is PostgreSQL's, so a writer may die between the two. The table's next
writer then copies what the summaries say. docs/decisions/0004-gold-marks.md says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.lake import gold_hours
from marketflow.lake.gold_features import Written
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, walk
from marketflow.lake.watermark import ACCOUNTING
from marketflow.settings import Settings
from marketflow.warehouse import gold_accounting
from marketflow.warehouse.connection import connect

# products' hours, some 30 bytes each, which every later commit writes anew; nine hours of ten products are 90
MOST = 1_000


def to_json(written: Iterable[Written]) -> str:
    """The `marketflow.accounting` property: hour to venue to product to trades, rows and later quotes."""
    nested: dict[str, dict[str, dict[str, tuple[int, int, int]]]] = {}
    for one in written:
        venues = nested.setdefault(one.hour.isoformat(), {})
        venues.setdefault(one.venue, {})[one.product_id] = (one.trades, one.rows, one.later_quotes)
    return json.dumps(nested, separators=(",", ":"), sort_keys=True)


def from_json(text: str) -> list[Written]:
    """The inverse of to_json, without the files."""
    return [
        Written(venue, product_id, datetime.fromisoformat(hour), (), *counts)
        for hour, venues in json.loads(text).items()
        for venue, products in venues.items()
        for product_id, counts in products.items()
    ]


def copy_missing(spark: SparkSession, settings: Settings, table: Table) -> int:
    """Bring ops.gold_accounting up to the table's snapshots; returns how many were copied, under the caller's lock.

    Every writer begins with it, so only what is newer than the newest known snapshot can be missing. Oldest first: of
    two accounts of an hour the newer one stays.
    """
    history = walk(java_table(spark, table_name(settings, table)))
    with connect(settings) as connection:
        news = list(takewhile(lambda one: not gold_accounting.knows(connection, table, one.snapshot_id), history))
        missing = [one for one in reversed(news) if ACCOUNTING in one.properties]
        for one in missing:
            hours = gold_hours.from_json(one.properties["hours"])
            gold_accounting.record(connection, table, hours, from_json(one.properties[ACCOUNTING]), one.snapshot_id)
    return len(missing)
