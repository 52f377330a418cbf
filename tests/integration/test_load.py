"""A researcher's reads: the rows that were asked for, of a snapshot that can be read again."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from gold_lake import append, at, fresh, trade
from pyspark.sql import SparkSession
from typer.testing import CliRunner

import marketflow
from marketflow.catalog.load import load
from marketflow.contracts.silver import TRADES
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings


@pytest.fixture
def settings(embedded: Settings, lake: SparkSession) -> Settings:
    fresh(lake, embedded)
    rows = [
        trade(i, at("10:00") + timedelta(minutes=i), product_id=p) for p in ("BTC-USD", "ETH-USD") for i in range(9)
    ]
    append(lake, embedded, TRADES, rows)
    return embedded


def test_it_gives_what_was_asked_for_in_order_and_the_same_again_by_its_snapshot(
    settings: Settings, lake: SparkSession
) -> None:
    asked = {"start": "2026-03-10T10:02", "end": at("10:05"), "settings": settings}
    rows, first = marketflow.load("silver.trades", "ETH-USD", **asked)
    assert rows.select("product_id", "trade_id").rows() == [("ETH-USD", 2), ("ETH-USD", 3), ("ETH-USD", 4)]
    append(lake, settings, TRADES, [trade(100, at("10:03"), product_id="ETH-USD")])
    later = load("silver.trades", "ETH-USD", **asked)
    assert later.frame["trade_id"].to_list() == [2, 3, 4, 100]
    assert later.snapshot_id != first
    again = load("silver.trades", "ETH-USD", snapshot=first, **asked)
    assert again.frame.equals(rows)
    assert again.to_pandas().attrs == {"snapshot_id": first}
    narrow = load("silver.trades", venue="binance", columns=("price", "size"), settings=settings)
    assert (narrow.frame.columns, narrow.frame.height) == (["price", "size"], 0)
    assert load("gold.trade_features", settings=settings).snapshot_id is None
    assert load("silver.trades", "BTC-USD", start="2027-01-01", settings=settings).frame.height == 0
    assert load("silver.trades", "SOL-USD", settings=settings).frame.height == 0


def test_what_is_not_there_is_said_with_what_is(settings: Settings) -> None:
    for arguments, words in (
        ({"table": "silver.trade"}, "no table 'silver.trade' in the lake; known: bronze.candles_raw"),
        ({"table": "silver.trades", "columns": ("prise",)}, "has no column prise; it has venue"),
        ({"table": "silver.trades", "snapshot": 5}, r"has no snapshot 5 \(any more\); the newest: \d+"),
        ({"table": "silver.trades", "start": "soon"}, "start 'soon' is no time"),
        (
            {"table": "silver.trades", "product": "BTC-USDD"},
            "silver.trades has no row of 'BTC-USDD'; products are .*BTC-USD, ",
        ),
        ({"table": "silver.trades", "start": "2026-03-11", "end": at("10:00")}, "start 2026-03-11 is not before end"),
        ({"table": "silver.asset_prices", "product": "BTC-USD"}, "has no column product_id"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            load(**arguments, settings=settings)


def test_features_read_writes_a_file_and_names_the_snapshot(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from marketflow import cli

    for name in ("home", "postgres_port", "s3_port"):
        monkeypatch.setenv(f"MARKETFLOW_{name.upper()}", str(getattr(settings, name)))
    done = CliRunner().invoke(
        cli.app,
        ["features", "read", "BTC-USD", "--start", "2026-03-10", "--out", str(tmp_path / "out.parquet"), "--json"],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"out": str(tmp_path / "out.parquet"), "rows": 0, "snapshot_id": None}
    assert "ma_50_trades" in pl.read_parquet(tmp_path / "out.parquet").columns
