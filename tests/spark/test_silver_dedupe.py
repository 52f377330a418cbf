"""Duplicates against a slow oracle: random trades, batches and stored rows, on a Spark without lake."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from marketflow.contracts.columns import Type
from marketflow.lake import silver_dedupe
from marketflow.lake.silver_sources import PRICES, QUOTES, TRADES, Source

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def row(source: Source, randomness: random.Random, offset: int, **fixed: Any) -> dict[str, Any]:
    """A row of the source's table with few different keys and contents; `fixed` columns are as given."""
    made: dict[str, Any] = {}
    for column in source.table.columns:
        if column.type is Type.MONEY:
            made[column.name] = (
                None if column.nullable and randomness.random() < 0.5 else Decimal(randomness.randint(1, 2))
            )
        elif column.type is Type.TIMESTAMP:
            made[column.name] = NOON
        elif column.type in (Type.INTEGER, Type.LONG):
            made[column.name] = randomness.randint(1, 9)
        elif column.type is Type.BOOLEAN:
            made[column.name] = randomness.choice([True, None])
        else:
            made[column.name] = randomness.choice("ab") if column.name in source.table.key else "x"
    lineage = {"topic": "t", "partition": offset % 2, "offset": offset // 2, "item_index": 0}
    return made | lineage | {"ingested_at": NOON + timedelta(seconds=offset // 7)} | fixed


def key_of(source: Source, one: dict[str, Any]) -> tuple[Any, ...]:
    if source is QUOTES:
        when = one["event_ts"] if one["sequence"] is None else None
        return one["venue"], one["product_id"], one["sequence"], when
    return tuple(one[name] for name in source.table.key)


def content_of(source: Source, one: dict[str, Any]) -> tuple[Any, ...]:
    if source is TRADES:
        time = one["event_ts"].replace(microsecond=one["event_ts"].microsecond // 1000 * 1000)
        return one["price"], one["size"], one["taker_side"], time
    return tuple(one[name] for name in source.content)


def lineage_of(one: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in ("topic", "partition", "offset", "item_index"))


def oracle(source: Source, batch: list[dict[str, Any]], stored: list[dict[str, Any]]) -> dict[tuple[Any, ...], str]:
    """One row after the other, in order of arrival."""
    there = {key_of(source, one): dict(one) for one in stored}
    verdicts = {}
    for one in sorted(batch, key=lambda each: (each["ingested_at"], *lineage_of(each))):
        first = there.setdefault(key_of(source, one), one)
        if first is one:
            verdict = "new"
        elif lineage_of(first) == lineage_of(one):
            verdict = "already_here"
        else:
            same = content_of(source, first) == content_of(source, one)
            verdict = "duplicate" if same else "conflict"
        verdicts[lineage_of(one)] = verdict
    return verdicts


def frame(spark: SparkSession, source: Source, rows: list[dict[str, Any]]) -> Any:
    names = [*source.table.column_names, "ingested_at"]
    ddl = f"{source.table.spark_schema}, ingested_at timestamp"
    return spark.createDataFrame([tuple(one[name] for name in names) for one in rows], ddl)


@pytest.mark.parametrize("source", [TRADES, QUOTES, PRICES], ids=lambda source: source.table.name)
def test_every_item_gets_the_verdict_of_the_slow_oracle(spark: SparkSession, source: Source) -> None:
    randomness = random.Random(7)
    times = {"event_ts", "last_updated"} & set(source.table.column_names)

    def one(offset: int) -> dict[str, Any]:
        moment = NOON + timedelta(microseconds=randomness.choice([0, 1, 999, 1000]))
        made = row(source, randomness, offset, **dict.fromkeys(times, moment))
        if source is QUOTES and randomness.random() < 0.3:
            made["sequence"] = None
        return made

    history = [one(offset) for offset in range(60)]
    first_of = {}
    for each in history:
        first_of.setdefault(key_of(source, each), each)
    stored = list(first_of.values())
    # the batch reads some of the stored records again, and goes on
    batch = history[30:] + [one(offset) for offset in range(60, 160)]
    judged = silver_dedupe.classify(source, frame(spark, source, batch), frame(spark, source, stored))
    found = {lineage_of(each.asDict()): each.verdict for each in judged.collect()}
    expected = oracle(source, batch, stored)
    assert found == expected
    assert set(expected.values()) >= {"new", "already_here", "conflict"}


def test_a_null_and_a_value_are_a_conflict_and_two_nulls_are_not(spark: SparkSession) -> None:
    randomness = random.Random(1)
    base = row(QUOTES, randomness, 0, volume_24h=None)
    batch = [base, {**base, "offset": 5}, {**base, "offset": 6, "volume_24h": Decimal(1)}]
    judged = silver_dedupe.classify(QUOTES, frame(spark, QUOTES, batch), frame(spark, QUOTES, []))
    found = {each.offset: (each.verdict, each.conflict) for each in judged.collect()}
    assert found == {
        0: ("new", None),
        5: ("duplicate", None),
        6: ("conflict", "volume_24h differ from the row that came first, of t/0/0/0"),
    }
