"""Bronze: Kafka records into Iceberg, exactly once, one streaming query a topic.

Iceberg's own streaming sink is used, not foreachBatch: it writes the query's id and the batch's number into each
snapshot and recognises a batch that was committed already, so a kill between the table's commit and the
checkpoint's changes nothing.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming import StreamingQuery

from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.columns import Column, Table
from marketflow.contracts.topics import TOPICS, Topic
from marketflow.lake import stream_headers
from marketflow.lake.session import table_name
from marketflow.lake.stream_reset import query_name as query_name
from marketflow.lake.stream_reset import starting_offsets
from marketflow.settings import Settings


def read_topics(
    spark: SparkSession, settings: Settings, *topics: Topic, messages_per_batch: int, starting: str = "earliest"
) -> DataFrame:
    """Topics as one stream from `starting` on, with headers; a record lost before it was read is an error."""
    return (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", settings.bootstrap_servers)
        .option("subscribe", ",".join(topic.full_name(settings.topic_prefix) for topic in topics))
        .option("startingOffsets", starting)
        .option("failOnDataLoss", "true")
        .option("includeHeaders", "true")
        .option("maxOffsetsPerTrigger", messages_per_batch)
        .load()
    )


def columns(messages: DataFrame, table: Table) -> DataFrame:
    """Kafka's records as the columns of a bronze contract; every other column is the header of its name."""
    from_kafka = {
        "topic": f.col("topic"),
        "partition": f.col("partition"),
        "offset": f.col("offset"),
        "key": f.try_validate_utf8(f.col("key").cast("string")),
        "value": f.col("value"),
        "kafka_timestamp": f.col("timestamp"),
        # the time in the batch's own offset log: a constant of the batch, the same when it is replayed
        "ingested_at": f.current_timestamp(),
        "headers": stream_headers.as_json(),
    }

    def column(contract: Column) -> f.Column:
        known = from_kafka.get(contract.name)
        value = stream_headers.typed(contract.name, contract.type) if known is None else known
        return value.alias(contract.name)

    return messages.select(*(column(contract) for contract in table.columns))


def start_queries(spark: SparkSession, settings: Settings, *, available_now: bool = False) -> list[StreamingQuery]:
    """Start one query per topic. With `available_now` each ends when it has read what is there now.

    Raises:
        LakeStateError: a query's checkpoint is gone and its table has rows.
    """
    tables = {table.name: table for table in BRONZE_TABLES}
    trigger = {"availableNow": True} if available_now else {"processingTime": f"{settings.bronze_trigger_s} seconds"}
    started = []
    for topic in TOPICS:
        table = tables[topic.bronze]
        messages = read_topics(
            spark,
            settings,
            topic,
            messages_per_batch=settings.max_offsets_per_trigger,
            starting=starting_offsets(spark, settings, topic),
        )
        started.append(
            # one task, one file a commit: at the usual rates small files cost more than a second core gains
            columns(messages, table)
            .coalesce(1)
            .writeStream.format("iceberg")
            .queryName(query_name(topic))
            .outputMode("append")
            .option("checkpointLocation", f"{settings.checkpoints}/{query_name(topic)}")
            .option("fanout-enabled", "true")
            .option("check-nullability", "false")
            .trigger(**trigger)
            .toTable(table_name(settings, table))
        )
    return started
