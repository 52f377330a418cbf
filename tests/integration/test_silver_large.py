"""A large batch is put in the files' order by the workers that hold it, not by Spark: same rows, same books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Trade, garbage, heartbeat, match, page

from marketflow.contracts import silver as contracts
from marketflow.lake import silver, silver_batch
from marketflow.lake.session import table_name
from marketflow.settings import Settings

SOURCE = silver.SOURCES["silver.trades"]
MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Bronze:
    monkeypatch.setattr(silver_batch, "_ONE_TASK_ROWS", 1)
    lake_of.fresh(lake, embedded)
    return Bronze(lake, embedded)


def test_every_file_is_in_the_tables_order_and_every_row_is_there(bronze: Bronze) -> None:
    eth = "ETH-USD"
    # ids against the order of arrival, both days, duplicates within the batch and over two, what is refused
    first = [
        match(Trade(number, event_at=MIDNIGHT + timedelta(seconds=20 - 3 * number))) for number in range(12, 0, -1)
    ]
    second = [match(Trade(number, product_id=eth)) for number in (75, 71, 74, 72, 71)]
    bronze.commit({0: [*first, heartbeat(), garbage()], 1: second}, NOON + timedelta(minutes=1))
    again = {0: [match(Trade(5, price="7"))], 1: [match(Trade(74, product_id=eth))]}
    bronze.commit(again | {2: [page([Trade(40), Trade(13), Trade(40)])]}, NOON + timedelta(minutes=2))
    (commit,) = silver.advance(bronze.spark, bronze.settings, SOURCE)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))
    assert commit.accounting.inserted == len(lake_of.stored_trades(bronze.settings))

    name = table_name(bronze.settings, contracts.TRADES)
    rows = bronze.spark.sql(f"select _file, _pos, product_id, to_date(event_ts) as day, trade_id from {name}").collect()
    for before, after in pairwise(sorted(rows, key=lambda row: (row._file, row._pos))):
        if before._file == after._file:
            assert (before.product_id, before.day) == (after.product_id, after.day)
            assert before.trade_id < after.trade_id
    assert len({row._file for row in rows}) < len(rows)
