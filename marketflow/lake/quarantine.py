"""silver.rejected, looked at and emptied: what was refused and why, and a second chance after a parser's fix."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.reasons import Reason
from marketflow.errors import ConfigurationError
from marketflow.lake import readers
from marketflow.lake.silver_redrive import Redriven, redrive_source
from marketflow.lake.silver_sources import SOURCES, named
from marketflow.settings import Settings

__all__ = ["Redriven", "redrive", "show"]

# of a message's bytes, in a list for people; silver.rejected has them all
_SHOWN_BYTES = 400
_SHOW = """
select
  topic, partition, "offset", item_index, source_table, venue, channel, reason, detail, received_at, rejected_at,
  value, octet_length(value) as value_bytes
from silver.rejected
where (reason = $reason or $reason is null) and (source_table = $table or $table is null)
order by rejected_at desc, topic, partition, "offset" desc, item_index
limit $limit
"""


def show(
    settings: Settings, *, reason: str | None = None, table: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """Rejected items, newest first, without Spark: `value` is the start of the bytes as text.

    Raises:
        ConfigurationError: there is no such reason or table.
    """
    _check(reason, table)
    connection = readers.duckdb(settings)
    try:
        found = connection.execute(_SHOW, {"reason": reason, "table": table, "limit": limit})
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    finally:
        connection.close()
    return [row | {"value": _text(row["value"])} for row in rows]


def _text(value: bytes | None) -> str:
    return "" if value is None else value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")


def redrive(
    spark: SparkSession,
    settings: Settings,
    *,
    reason: str | None = None,
    table: str | None = None,
    since: datetime | None = None,
) -> list[Redriven]:
    """Parse rejected messages again from bronze: what parses now goes to its table and leaves the quarantine.

    Raises:
        ConfigurationError: there is no such reason or table.
        BusyError: another process writes one of the tables.
        LakeStateError: a rejected message is not in bronze, or a table lost its watermark.
    """
    _check(reason, table)
    sources = [source for source in SOURCES.values() if table in (None, source.table.qualified)]
    return [redrive_source(spark, settings, source, reason=reason, since=since) for source in sources]


def _check(reason: str | None, table: str | None) -> None:
    known = [each.value for each in Reason]
    if reason is not None and reason not in known:
        raise ConfigurationError(f"no reason {reason!r}; known: {', '.join(known)}")
    if table is not None:
        named(table)
