"""Postgres is brought to its contracts, and only by the allowed steps."""

from __future__ import annotations

import pytest

from marketflow.contracts.tables import POSTGRES_TABLES
from marketflow.errors import BusyError, ContractError
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.settings import Settings
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock


def test_applying_contracts_twice_changes_nothing(embedded: Settings) -> None:
    assert schema.apply(embedded) == {}
    with connect(embedded) as connection:
        tables = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            "where table_type = 'BASE TABLE' and table_schema = any(%s)",
            (list(schema.SCHEMAS),),
        ).fetchall()
    assert {name for (name,) in tables} == {table.qualified for table in POSTGRES_TABLES}


def test_a_missing_nullable_column_is_added_and_a_narrow_integer_widened(embedded: Settings) -> None:
    with connect(embedded) as connection:
        connection.execute("alter table ops.stream_progress drop column error")
        connection.execute("alter table ops.publish_audit alter column row_count type integer")
    changes = schema.apply(embedded)
    assert changes == {"ops.stream_progress": ["added error"], "ops.publish_audit": ["widened row_count"]}


def test_a_column_of_another_type_is_refused_by_name(embedded: Settings) -> None:
    with connect(embedded) as connection:
        connection.execute("alter table ops.publish_audit alter column hours type text")
    try:
        with pytest.raises(ContractError, match=r"ops\.publish_audit\.hours is STRING"):
            schema.apply(embedded)
    finally:
        with connect(embedded) as connection:
            connection.execute("alter table ops.publish_audit alter column hours type integer using hours::integer")


def test_the_catalogue_of_features_is_there_to_be_asked(embedded: Settings) -> None:
    schema.apply(embedded)
    with connect(embedded, "marketflow_reader") as connection:
        rows = connection.execute(
            "select name, reads_future, lookback, horizon, null_rule from mart.feature_catalogue"
        ).fetchall()
    assert [row[0] for row in rows] == list(CATALOGUE)
    assert ("target_return_50", True, 0, 50, "as future_price_50") in rows
    assert ("volatility_100", False, 99, 0, "until 100 trades exist") in rows


def test_the_reader_reads_and_may_not_write(embedded: Settings) -> None:
    with connect(embedded, "marketflow_reader") as connection:
        assert connection.execute("select count(*) from live.top_movers").fetchone() == (0,)
        with pytest.raises(Exception, match="permission denied"):
            connection.execute("delete from live.top_movers")


def test_a_second_writer_of_a_table_is_told_to_come_back_later(embedded: Settings) -> None:
    with table_lock(embedded, "gold.bars"):
        with pytest.raises(BusyError) as caught, table_lock(embedded, "gold.bars"):
            raise AssertionError("the second lock was granted")
        assert caught.value.exit_code == 75
        with table_lock(embedded, "gold.price_metrics"):
            pass
    with table_lock(embedded, "gold.bars"):
        pass


def test_a_lock_is_free_the_moment_its_writer_is_done_also_when_it_failed(embedded: Settings) -> None:
    for _ in range(200):
        with table_lock(embedded, "gold.bars"):
            pass
        with pytest.raises(ZeroDivisionError), table_lock(embedded, "gold.bars"):
            _ = 1 / 0
