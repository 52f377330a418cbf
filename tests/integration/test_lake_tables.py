"""Iceberg tables are brought to their contracts, and only by the allowed steps."""

from __future__ import annotations

import contextlib
import dataclasses

import gold_lake
import psutil
import pytest
from pyspark.sql import SparkSession

from marketflow.contracts import bronze, gold, silver
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ContractError
from marketflow.lake import readers, tables
from marketflow.lake.session import table_name
from marketflow.settings import Settings


def test_every_lake_contract_becomes_a_table_with_its_columns_and_partitions(
    embedded: Settings, lake: SparkSession
) -> None:
    assert tables.apply_contracts(lake, embedded) == {}
    for table in LAKE_TABLES:
        stored = lake.table(table_name(embedded, table)).schema
        assert tuple(stored.fieldNames()) == table.column_names
        assert [field.dataType.simpleString() for field in stored] == [c.type.spark for c in table.columns]
    described = {
        row.col_name: row.data_type for row in lake.sql(f"describe {table_name(embedded, gold.BARS)}").collect()
    }
    assert (described["Part 0"], described["Part 1"]) == ("interval", "days(open_ts)")


def test_a_missing_nullable_column_is_added(embedded: Settings, lake: SparkSession) -> None:
    name = table_name(embedded, silver.REJECTED)
    lake.sql(f"alter table {name} drop column channel")
    assert tables.apply_contracts(lake, embedded) == {"silver.rejected": ["added channel"]}


def test_an_unknown_column_is_refused_by_name(embedded: Settings, lake: SparkSession) -> None:
    name = table_name(embedded, bronze.BRONZE_TABLES[3])
    lake.sql(f"alter table {name} add column surprise string")
    try:
        with pytest.raises(ContractError, match="candles_raw has column surprise"):
            tables.apply_contracts(lake, embedded)
    finally:
        lake.sql(f"alter table {name} drop column surprise")


def test_no_password_stands_on_a_command_line_and_new_sessions_know_the_catalog(
    embedded: Settings, lake: SparkSession
) -> None:
    secrets = [embedded.secret(name) for name in ("postgres_iceberg", "s3_secret_key")]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            assert not any(secret in " ".join(process.cmdline()) for secret in secrets)
    assert lake.newSession().table(table_name(embedded, gold.BARS)).columns == list(gold.BARS.column_names)


def test_a_lake_from_before_float_born_gets_it_and_its_rows_are_exact_ones(
    embedded: Settings, lake: SparkSession
) -> None:
    gold_lake.fresh(lake, embedded)
    name = table_name(embedded, silver.TRADES)
    lake.sql(f"alter table {name} drop column float_born")
    older = dataclasses.replace(silver.TRADES, columns=silver.TRADES.columns[:-1])
    assert [column.name for column in silver.TRADES.columns[-1:]] == ["float_born"]
    gold_lake.append(lake, embedded, older, [gold_lake.trade(1, gold_lake.at("9:00"))])
    assert tables.apply_contracts(lake, embedded) == {"silver.trades": ["added float_born"]}
    polled = gold_lake.trade(2, gold_lake.at("9:01"), venue="ccxt_kraken", float_born=True)
    gold_lake.append(lake, embedded, silver.TRADES, [polled])
    assert lake.table(name).columns == list(silver.TRADES.column_names)
    kept = sorted(readers.load(embedded, "silver.trades").to_pylist(), key=lambda row: row["trade_id"])
    assert [(row["venue"], row["float_born"]) for row in kept] == [("coinbase_exchange", None), ("ccxt_kraken", True)]
