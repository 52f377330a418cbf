"""Tables partitioned by day in PostgreSQL: made, filled, emptied by whole days, and taken over from one piece."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from marketflow.contracts.gold import BARS, TOP_MOVERS
from marketflow.contracts.tables import POSTGRES_TABLES
from marketflow.errors import ContractError
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions, retention, schema
from marketflow.warehouse.connection import connect

NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
WINDOW = timedelta(days=30)
PARTITIONED = [table for table in POSTGRES_TABLES if table.day_column]


@pytest.fixture
def settings(embedded: Settings) -> Iterator[Settings]:
    def empty() -> None:
        with connect(embedded) as connection:
            connection.execute("delete from gold.bars")

    empty()
    yield embedded
    empty()


def put(connection: psycopg.Connection[Any], *times: datetime, trade_count: int = 1) -> None:
    for when in times:
        connection.execute(
            "insert into gold.bars (venue, product_id, interval, open_ts, volume, notional, trade_count, buy_volume, "
            "sell_volume, has_gap, is_complete) values ('v', 'BTC-USD', '1m', %s, 1, 1, %s, 1, 0, false, true)",
            (when, trade_count),
        )


def stored(settings: Settings, name: str = "gold.bars") -> list[datetime]:
    with connect(settings, "marketflow_reader") as connection:
        rows = connection.execute(f"select open_ts from {name} order by open_ts").fetchall()  # type: ignore[arg-type]
    return [when for (when,) in rows]


def places(settings: Settings) -> dict[datetime, str]:
    """Time of a row to the partition it lies in."""
    with connect(settings) as connection:
        rows = connection.execute("select open_ts, tableoid::regclass::text from gold.bars").fetchall()
    return dict(rows)


def test_a_row_lies_in_its_day_or_in_the_default_partition_until_its_day_is_made(settings: Settings) -> None:
    assert {table.qualified for table in PARTITIONED} == {
        *("gold.price_metrics", "gold.top_movers", "gold.bars", "ops.quality_result"),
        *("live.asset_observation", "live.price_metrics", "live.top_movers"),
    }
    # PostgreSQL could not hold the key otherwise
    assert all(table.day_column in table.key for table in PARTITIONED)
    recent, old, ancient, far = NOW, NOW - 12 * DAY, NOW - 400 * DAY, NOW + 40 * DAY
    with connect(settings) as connection:
        put(connection, recent, old, ancient, far)
    day = f"parts.gold_bars_{old:%Y%m%d}"
    try:
        assert places(settings)[recent] == f"parts.gold_bars_{NOW:%Y%m%d}"
        assert {places(settings)[when] for when in (old, ancient, far)} == {"parts.gold_bars_default"}
        with connect(settings) as connection:
            assert day_partitions.ensure(connection, BARS, NOW - WINDOW, NOW) == 1
        assert places(settings)[old] == day
        assert {places(settings)[when] for when in (ancient, far)} == {"parts.gold_bars_default"}
        assert stored(settings) == sorted([recent, old, ancient, far])
        with connect(settings) as connection:
            assert day_partitions.ensure(connection, BARS, NOW - WINDOW, NOW) == 0
            with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
                put(connection, old)
            # a row that is written over stays one row, in whichever partition
            connection.execute(
                "insert into gold.bars select * from gold.bars on conflict (venue, product_id, interval, open_ts) "
                "do update set trade_count = 7"
            )
            assert connection.execute("select count(*), min(trade_count) from gold.bars").fetchone() == (4, 7)
    finally:
        with connect(settings) as connection:
            connection.execute(f"drop table {day}")  # type: ignore[arg-type]


def test_whole_days_are_dropped_and_the_day_that_is_partly_old_waits(settings: Settings) -> None:
    days = [TODAY - number * DAY for number in (31, 30, 29)]
    with connect(settings) as connection:
        for day in days:
            put(connection, day, day + DAY - timedelta(microseconds=1))
        put(connection, TODAY - 40 * DAY)
        day_partitions.ensure(connection, BARS, TODAY - 31 * DAY, NOW)
        # the row of forty days ago has none
        assert set(days) < set(day_partitions.days(connection, BARS))
    with connect(settings) as connection:
        assert day_partitions.drop_before(connection, BARS, days[1] + timedelta(hours=5)) == 3
        assert days[0] not in day_partitions.days(connection, BARS)
    assert stored(settings)[0] == days[1]
    kept = {each.table: each for each in retention.keep(settings, days[2] + WINDOW)}
    assert kept["gold.bars"].rows_dropped == 2
    assert stored(settings)[0] == days[2]
    assert retention.keep(settings, days[2] + WINDOW)[0].rows_dropped == 0
    retention.keep(settings, days[2] + WINDOW + DAY)
    assert stored(settings) == []


def test_who_reads_for_long_is_not_waited_for_and_loses_nothing(settings: Settings) -> None:
    old = TODAY - 35 * DAY
    with connect(settings) as connection:
        put(connection, old)
        day_partitions.ensure(connection, BARS, old, NOW)
    with connect(settings, "marketflow_reader") as reader:
        assert reader.execute("select count(*) from mart.bars").fetchone() == (1,)
        started = datetime.now(UTC)
        with connect(settings) as connection:
            assert day_partitions.drop_before(connection, BARS, old + DAY) == 0
            put(connection, old + timedelta(minutes=1))
        assert datetime.now(UTC) - started < timedelta(seconds=10)
        assert reader.execute("select count(*) from mart.bars").fetchone() == (2,)
    with connect(settings) as connection:
        assert day_partitions.drop_before(connection, BARS, old + DAY) == 2


def test_days_are_made_beside_a_writer_at_work_or_left_for_the_next_run(settings: Settings) -> None:
    missing = TODAY - 20 * DAY
    with connect(settings) as connection:
        put(connection, missing)
    with connect(settings) as writer:
        put(writer, missing + timedelta(minutes=1))
        with connect(settings) as connection:
            assert day_partitions.ensure(connection, BARS, NOW - WINDOW, NOW) == 0
    with connect(settings) as connection:
        assert day_partitions.ensure(connection, BARS, NOW - WINDOW, NOW) == 1
    assert set(places(settings).values()) == {f"parts.gold_bars_{missing:%Y%m%d}"}
    with connect(settings) as connection:
        assert day_partitions.drop_before(connection, BARS, missing + DAY) == 2


def as_an_earlier_version_made_it(connection: psycopg.Connection[Any], name: str) -> None:
    """The same table in one piece, read by the mart's views; parts of it made a new one, so are its indexes."""
    connection.execute(f"drop table gold.{name} cascade")  # type: ignore[arg-type]
    table = BARS if name == "bars" else TOP_MOVERS
    connection.execute(f"create table gold.{name} ({schema._body(table)})")  # type: ignore[arg-type]
    schema._views(connection)
    schema._grants(connection)


def test_a_table_of_an_earlier_version_becomes_partitions_with_its_rows_and_views(settings: Settings) -> None:
    times = [NOW - 3 * DAY, NOW - 2 * DAY, NOW, NOW - 300 * DAY]
    with connect(settings) as connection:
        for name in ("bars", "top_movers"):
            as_an_earlier_version_made_it(connection, name)
        put(connection, *times)
        assert not day_partitions.is_partitioned(connection, BARS)
    changes = schema.apply(settings)
    assert changes == {
        "gold.bars": ["partitioned by day of open_ts, 4 rows"],
        "gold.top_movers": ["partitioned by day of snapshot_ts, 0 rows"],
    }
    assert schema.apply(settings) == {}
    assert stored(settings) == stored(settings, "mart.bars") == sorted(times)
    assert places(settings) == {when: f"parts.gold_bars_{when:%Y%m%d}" for when in times[:3]} | {
        times[3]: "parts.gold_bars_default"
    }
    with connect(settings) as connection:
        put(connection, NOW - DAY)
        with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
            put(connection, times[0])
        indexes = connection.execute(
            "select indexname from pg_indexes where schemaname = 'gold' and tablename = 'bars'"
        )
        assert {name for (name,) in indexes} == {
            *("bars_pkey", "gold_bars_open_ts", "gold_bars_product_interval_open_ts"),
        }
        left = connection.execute("select count(*) from pg_class where relname like '%_as_it_was%'").fetchone()
        assert left == (0,)
    assert len(stored(settings, "mart.bars")) == 5
    with connect(settings) as connection:
        day_partitions.drop_before(connection, BARS, TODAY - DAY)


def test_a_view_of_somebodys_own_stops_the_change_and_nothing_is_lost(settings: Settings) -> None:
    with connect(settings) as connection:
        as_an_earlier_version_made_it(connection, "bars")
        put(connection, NOW)
        connection.execute("create view public.my_bars as select open_ts from gold.bars")
    try:
        with pytest.raises(ContractError, match=r"gold\.bars is to be partitioned .* view my_bars depends on"):
            schema.apply(settings)
        assert stored(settings) == stored(settings, "mart.bars") == [NOW]
        with connect(settings) as connection:
            assert not day_partitions.is_partitioned(connection, BARS)
    finally:
        with connect(settings) as connection:
            connection.execute("drop view public.my_bars")
    assert schema.apply(settings) == {"gold.bars": ["partitioned by day of open_ts, 1 rows"]}
    assert stored(settings) == stored(settings, "mart.bars") == [NOW]
