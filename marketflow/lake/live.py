"""The live query: the prices topic into PostgreSQL within one trigger, beside bronze and independent of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming import StreamingQuery

from marketflow.contracts.live import ASSET_OBSERVATION
from marketflow.contracts.records import AssetPrice
from marketflow.contracts.topics import PRICES
from marketflow.lake import bronze, live_query, silver_sources, stream_headers
from marketflow.settings import Settings
from marketflow.warehouse import live
from marketflow.warehouse.connection import connect

QUERY = "live_prices"
# pages of up to 250 coins and 200 kB pass through the driver: a batch of these is at most 40 MB
_MESSAGES_PER_BATCH = 200
_PRUNE_EVERY_S = 3600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def start_query(spark: SparkSession, settings: Settings, *, available_now: bool = False) -> StreamingQuery:
    """Start the live query. With `available_now` it ends when it has read what is there now."""
    messages = bronze.read_topics(spark, settings, PRICES, messages_per_batch=_MESSAGES_PER_BATCH).select(
        "partition", "offset", "value", stream_headers.as_json().alias("headers")
    )
    return live_query.start(messages, settings, QUERY, BatchWriter(settings), available_now=available_now)


class BatchWriter:
    """What Spark calls with each batch. Holds no data: when it last deleted old rows is all it remembers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next_prune = time.monotonic() + _PRUNE_EVERY_S

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch; a batch that was written before does nothing."""
        rows = sorted(batch.collect(), key=lambda row: (row["partition"], row["offset"]))
        write(self._settings, live_query.numbered_by(batch, QUERY), batch_id, observations(rows))
        if time.monotonic() >= self._next_prune:
            delete_old(self._settings)
            self._next_prune = time.monotonic() + _PRUNE_EVERY_S


def observations(messages: Iterable[Row | Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows of live.asset_observation from bronze's `headers` and `value`; silver accounts for whatever gives none."""
    listed = list(messages)
    all_headers = [message["headers"] for message in listed]
    values = [bytes(message["value"] or b"") for message in listed]
    return [_row(item, headers) for _, headers, _, item in live_query.items(silver_sources.PRICES, all_headers, values)]


def _row(item: AssetPrice, headers: Mapping[str, str]) -> tuple[Any, ...]:
    given = {
        "last_updated": _EPOCH + timedelta(microseconds=item.last_updated_us),
        "polled_at": _time(headers["received_at"]),
        "poll_started_at": _time(headers["poll_started_at"]),
        "poll_id": headers["poll_id"],
        "origin": headers["origin"],
    }
    return tuple(given[name] if name in given else getattr(item, name) for name in ASSET_OBSERVATION.column_names)


def _time(digits: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(digits))


@live_query.until_postgres_answers(QUERY)
def write(settings: Settings, query: str, batch_id: int, rows: list[tuple[Any, ...]]) -> live.Written:
    """One batch in one transaction, tried again while PostgreSQL is away."""
    with connect(settings) as connection:
        return live.write_batch(connection, settings, query, batch_id, rows)


@live_query.until_postgres_answers(QUERY)
def delete_old(settings: Settings) -> int:
    """Delete live rows older than the days that are kept."""
    with connect(settings) as connection:
        return live.prune(connection, settings)
