"""The query of trades and quotes: each product's newest features in PostgreSQL within one trigger, beside bronze."""

from __future__ import annotations

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from marketflow.contracts.topics import TICKER, TRADES
from marketflow.lake import bronze, live_cut, live_query, stream_headers
from marketflow.lake.silver_sources import SOURCES
from marketflow.settings import Settings
from marketflow.warehouse import live_features
from marketflow.warehouse.connection import connect

QUERY = "live_features"
# three minutes at 1,000 messages a second: what waited is read many times faster than it came
_MESSAGES_PER_BATCH = 200_000
# a task for each core of one machine, not one for each partition of two topics
_TASKS = 2


def start_query(spark: SparkSession, settings: Settings, *, available_now: bool = False) -> StreamingQuery:
    """Start the query. With `available_now` it ends when it has read what is there now."""
    messages = bronze.read_topics(spark, settings, TRADES, TICKER, messages_per_batch=_MESSAGES_PER_BATCH).select(
        "topic", "partition", "offset", stream_headers.as_json().alias("headers"), "value"
    )
    return live_query.start(messages, settings, QUERY, BatchWriter(settings), available_now=available_now)


class BatchWriter:
    """What Spark calls with each batch. Holds no data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        prefix = settings.topic_prefix
        self._sources = {
            source.topic.full_name(prefix): source for source in SOURCES.values() if source.topic in (TRADES, TICKER)
        }

    def __call__(self, batch: DataFrame, batch_id: int) -> None:
        """Write one batch; a batch that was written before does nothing."""
        rows = batch.coalesce(_TASKS).mapInArrow(live_cut.cutter(self._sources), live_cut.DDL).toArrow()
        write(self._settings, live_query.numbered_by(batch, QUERY), batch_id, *live_cut.tails(rows))


@live_query.until_postgres_answers(QUERY)
def write(
    settings: Settings, query: str, batch_id: int, trades: pl.DataFrame, quotes: pl.DataFrame
) -> live_features.Written:
    """One batch in one transaction, tried again while PostgreSQL is away."""
    with connect(settings) as connection:
        return live_features.write_batch(connection, query, batch_id, trades, quotes)
