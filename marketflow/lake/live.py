"""The live query: the prices topic into PostgreSQL within one trigger, beside bronze and independent of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.streaming import StreamingQuery
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from marketflow import venues
from marketflow.contracts.live import ASSET_OBSERVATION
from marketflow.contracts.records import AssetPrice, Parsed
from marketflow.contracts.topics import PRICES
from marketflow.lake import bronze, message_headers, silver_sources, stream_headers
from marketflow.settings import Settings
from marketflow.warehouse import live
from marketflow.warehouse.connection import connect

QUERY = "live_prices"
# pages of up to 250 coins and 200 kB pass through the driver: a batch of these is at most 40 MB
_MESSAGES_PER_BATCH = 200
_PRUNE_EVERY_S = 3600.0
# longer than any restart of PostgreSQL; what lasts longer ends the application, and the supervisor begins again
_GIVE_UP_AFTER_S = 300.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = {"last_updated", "polled_at", "poll_id", "poll_started_at", "origin"}


def start_query(spark: SparkSession, settings: Settings, *, available_now: bool = False) -> StreamingQuery:
    """Start the live query. With `available_now` it ends when it has read what is there now."""
    trigger = {"availableNow": True} if available_now else {"processingTime": f"{settings.live_trigger_s} seconds"}
    messages = bronze.read_topic(spark, settings, PRICES, messages_per_batch=_MESSAGES_PER_BATCH)
    return (
        messages.select("partition", "offset", "value", stream_headers.as_json().alias("headers"))
        .writeStream.queryName(QUERY)
        .option("checkpointLocation", f"{settings.checkpoints}/{QUERY}")
        .foreachBatch(BatchWriter(settings))
        .trigger(**trigger)
        .start()
    )


class BatchWriter:
    """What Spark calls with each batch. Holds no data: when it last deleted old rows is all it remembers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next_prune = time.monotonic() + _PRUNE_EVERY_S

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch; a batch that was written before does nothing."""
        query_id = batch.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
        rows = sorted(batch.collect(), key=lambda row: (row["partition"], row["offset"]))
        write(self._settings, f"{QUERY}/{query_id}", batch_id, observations(rows))
        if time.monotonic() >= self._next_prune:
            delete_old(self._settings)
            self._next_prune = time.monotonic() + _PRUNE_EVERY_S


def observations(messages: Iterable[Row | Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows of live.asset_observation from bronze's `headers` and `value`; silver accounts for whatever gives none."""
    listed = list(messages)
    all_headers, unread = message_headers.read([message["headers"] for message in listed])
    useless = {*unread, *message_headers.unfit(silver_sources.PRICES, all_headers)}
    found = []
    for position, (message, headers) in enumerate(zip(listed, all_headers, strict=True)):
        outcome = venues.parse(headers, bytes(message["value"] or b""))
        if position in useless or not isinstance(outcome, Parsed):
            continue
        of_message = {
            "polled_at": _time(headers["received_at"]),
            "poll_started_at": _time(headers["poll_started_at"]),
            "poll_id": headers["poll_id"],
            "origin": headers["origin"],
        }
        found += [_row(item, of_message) for item in outcome.items if isinstance(item, AssetPrice)]
    return found


def _row(item: AssetPrice, of_message: dict[str, Any]) -> tuple[Any, ...]:
    given = of_message | {"last_updated": _EPOCH + timedelta(microseconds=item.last_updated_us)}
    return tuple(given[name] if name in _FIELDS else getattr(item, name) for name in ASSET_OBSERVATION.column_names)


def _time(digits: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(digits))


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    first_line = (str(error).splitlines() or [""])[0]
    print(f"stream: {QUERY} tries again, PostgreSQL says: {first_line}", file=sys.stderr, flush=True)


_until_postgres_answers = retry(
    retry=retry_if_exception_type(psycopg.OperationalError),
    wait=wait_exponential_jitter(initial=0.2, max=5.0),
    stop=stop_after_delay(_GIVE_UP_AFTER_S),
    before_sleep=_tell,
    reraise=True,
)


@_until_postgres_answers
def write(settings: Settings, query: str, batch_id: int, rows: list[tuple[Any, ...]]) -> live.Written:
    """One batch in one transaction, tried again while PostgreSQL is away."""
    with connect(settings) as connection:
        return live.write_batch(connection, settings, query, batch_id, rows)


@_until_postgres_answers
def delete_old(settings: Settings) -> int:
    """Delete live rows older than the days that are kept."""
    with connect(settings) as connection:
        return live.prune(connection, settings)
