"""Bronze: one row per Kafka record, bytes as received, append-only for ever. Reprocessing starts here."""

from __future__ import annotations

from marketflow.contracts.columns import Column, Table, Type
from marketflow.contracts.topics import TOPICS, Topic

LINEAGE = (
    Column("topic", Type.STRING, "Kafka topic the record was read from, with the dataset's prefix"),
    Column("partition", Type.INTEGER, "Kafka partition"),
    Column("offset", Type.LONG, "Kafka offset"),
)

_COLUMNS = (
    *LINEAGE,
    Column("key", Type.STRING, "Kafka key: venue|product, or venue", nullable=True),
    Column("value", Type.BINARY, "the payload exactly as received, non-200 bodies too", nullable=True),
    Column("kafka_timestamp", Type.TIMESTAMP, "the record's Kafka time (producer's create time)"),
    Column("ingested_at", Type.TIMESTAMP, "the batch's own time; the same when a batch is replayed"),
    Column("schema_version", Type.STRING, "header: version of the header set", nullable=True),
    Column("venue", Type.STRING, "header: who sent the payload", nullable=True),
    Column("channel", Type.STRING, "header: the venue's channel or call", nullable=True),
    Column("received_at", Type.TIMESTAMP, "header: when the payload's last byte arrived", nullable=True),
    Column("connection_id", Type.STRING, "header: one id per connection or poller process", nullable=True),
    Column("origin", Type.STRING, "header: live, simulated, replay, heal or backfill", nullable=True),
    Column("request", Type.STRING, "header: REST path and sorted query, no secret", nullable=True),
    Column("http_status", Type.INTEGER, "header: REST status", nullable=True),
    Column("product_id", Type.STRING, "header: canonical product, where the payload does not say", nullable=True),
    Column(
        "vs_currency", Type.STRING, "header: quote currency of a page, where the payload does not say", nullable=True
    ),
    Column("poll_id", Type.STRING, "header: one id for all pages of a poll", nullable=True),
    Column("poll_started_at", Type.TIMESTAMP, "header: when the poll's first request was sent", nullable=True),
    Column("page", Type.INTEGER, "header: page number from 1", nullable=True),
    Column("reconstructed", Type.BOOLEAN, "header: the bytes were rebuilt from a capture", nullable=True),
    Column("oversize", Type.BOOLEAN, "header: only the first 1 MiB is kept", nullable=True),
    Column("original_length", Type.LONG, "header: whole length of an oversize payload", "bytes", nullable=True),
    Column("sha256", Type.STRING, "header: digest of the whole oversize payload", nullable=True),
    Column("headers", Type.STRING, "all headers as received, JSON object of text, so that none is lost", nullable=True),
    # a new column goes last: it is added at the end of tables that exist, and the stream writes by position
    Column("interval", Type.STRING, "header: length of a page's candles", nullable=True),
)


def _bronze(topic: Topic) -> Table:
    return Table(
        layer="bronze",
        name=topic.bronze,
        grain=f"one row per Kafka record of {topic.name}",
        key=("topic", "partition", "offset"),
        columns=_COLUMNS,
        owner="market_stream",
        description=f"Raw zone of {topic.holds}.",
        partitioning=("hours(ingested_at)",),
    )


BRONZE_TABLES = tuple(_bronze(topic) for topic in TOPICS)
