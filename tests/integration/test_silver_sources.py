"""Quotes and prices go the same way as trades, each by its own key and equality."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Message

from marketflow.lake import readers, silver
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect

MINUTE = timedelta(minutes=1)


@pytest.fixture
def tables(embedded: Settings, lake: SparkSession) -> Settings:
    lake_of.fresh(lake, embedded)
    return embedded


def ticker(sequence: int | None, best_bid: str, at: str = "2026-03-10T12:00:00.000000Z") -> Message:
    body = {
        "type": "ticker",
        "product_id": "BTC-USD",
        "price": "100",
        "time": at,
        "best_bid": best_bid,
        "best_ask": "101",
    }
    body |= {} if sequence is None else {"sequence": sequence}
    return Message(json.dumps(body).encode(), headers={"channel": "ticker"})


def test_quotes_are_known_by_sequence_and_by_time_where_there_is_none(lake: SparkSession, tables: Settings) -> None:
    bronze = Bronze(lake, tables, lake_of.TICKER)
    later = "2026-03-10T12:00:01.000000Z"
    bronze.commit({0: [ticker(1, "99"), ticker(None, "98"), ticker(2, "99.5"), ticker(1, "99")]}, NOON + MINUTE)
    bronze.commit(
        {0: [ticker(None, "98"), ticker(None, "98", later), ticker(2, "97"), ticker(3, "200")]}, NOON + 2 * MINUTE
    )
    commits = silver.advance(lake, tables, silver.SOURCES["silver.quotes"], max_messages=4)
    totals = [(c.accounting.accepted, c.accounting.duplicate, c.accounting.rejected) for c in commits]
    assert totals == [(3, 1, 0), (1, 1, 2)]
    rows = readers.load(tables, "silver.quotes").to_pylist()
    found = sorted((row["sequence"] or 0, row["event_ts"].second, row["best_bid"], row["offset"]) for row in rows)
    assert found == [(0, 0, Decimal(98), 1), (0, 1, Decimal(98), 5), (1, 0, Decimal(99), 0), (2, 0, Decimal("99.5"), 2)]
    reasons = {lineage[2]: reason for lineage, reason in lake_of.stored_rejected(tables)}
    assert reasons == {6: "conflicting_duplicate", 7: "crossed_quote"}


def page(poll: int, assets: list[dict[str, Any]], status: int = 200) -> Message:
    headers = {
        **{"venue": "coingecko", "channel": "markets", "vs_currency": "usd", "http_status": str(status)},
        **{
            "poll_id": f"poll-{poll}",
            "poll_started_at": str(round((NOON + poll * MINUTE).timestamp() * 1e6)),
            "page": "1",
        },
    }
    value = json.dumps(assets).encode() if status == 200 else b'{"status":{"error_code":429}}'
    return Message(value, headers=headers)


def asset(name: str, price: Any, at: datetime) -> dict[str, Any]:
    return {
        **{"id": name, "symbol": name[:3], "name": name.title(), "current_price": price, "market_cap": 10},
        **{"market_cap_rank": 1, "total_volume": 5, "last_updated": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
    }


def test_each_published_price_is_kept_once_with_the_poll_that_first_brought_it(
    lake: SparkSession, tables: Settings
) -> None:
    bronze = Bronze(lake, tables, lake_of.PRICES)
    early = NOON - 2 * MINUTE
    bronze.commit(
        {0: [page(1, [asset("bitcoin", 1e-7, early), asset("ether", 2.5, early)]), page(2, [], status=429)]},
        NOON + MINUTE,
    )
    moved = asset("ether", 2.75, early + MINUTE)
    bronze.commit(
        {0: [page(3, [asset("bitcoin", 1e-7, early), moved, asset("tether", None, early)])]}, NOON + 3 * MINUTE
    )
    bronze.complete_through(NOON + 4 * MINUTE)
    source = silver.SOURCES["silver.asset_prices"]
    first, second = silver.advance(lake, tables, source, max_messages=2)
    assert (first.accounting.ignored_by_name, first.accounting.accepted) == ({"http_429": 1}, 2)
    assert (second.accounting.accepted, second.accounting.duplicate, second.accounting.rejected) == (1, 1, 1)
    assert second.touched == {"coingecko": [NOON.replace(hour=11)]}
    rows = readers.load(tables, "silver.asset_prices").to_pylist()
    found = sorted((r["asset_id"], r["price"], r["poll_id"], r["last_updated"], r["item_index"]) for r in rows)
    assert found == [
        ("bitcoin", Decimal("0.0000001"), "poll-1", early, 0),
        ("ether", Decimal("2.5"), "poll-1", early, 1),
        ("ether", Decimal("2.75"), "poll-3", early + MINUTE, 1),
    ]
    assert {row["poll_started_at"] for row in rows} == {NOON + MINUTE, NOON + 3 * MINUTE}
    with connect(tables) as connection:
        mark = connection.execute(
            "select complete_through, newest_event_at from ops.layer_freshness where table_name = %s",
            ("silver.asset_prices",),
        ).fetchone()
    assert mark == (NOON + 4 * MINUTE, (early + MINUTE).astimezone(UTC))
    assert [reason for _, reason in lake_of.stored_rejected(tables)] == ["null_price"]


def test_a_page_in_another_currency_is_quarantined_and_takes_no_later_prices_place(
    lake: SparkSession, tables: Settings
) -> None:
    names, early = ("bitcoin", "tether", "usd-coin"), NOON - 2 * MINUTE

    def prices(rate: float, at: datetime) -> list[dict[str, Any]]:
        dollars = zip(names, (64000.0, 0.9998, 1.0001), strict=True)
        return [asset(name, round(price * rate, 6), at) for name, price in dollars]

    later = early + MINUTE
    pages = [page(1, prices(1, early)), page(2, prices(0.92, later)), page(3, []), page(4, prices(1, later))]
    bronze = Bronze(lake, tables, lake_of.PRICES)
    bronze.commit({0: pages}, NOON + 5 * MINUTE)
    (commit,) = silver.advance(lake, tables, silver.SOURCES["silver.asset_prices"], max_messages=10)
    assert (commit.accounting.accepted, commit.accounting.rejected, commit.accounting.duplicate) == (6, 3, 0)
    assert commit.accounting.ignored_by_name == {"empty_page": 1}
    rows = readers.load(tables, "silver.asset_prices").to_pylist()
    assert {(row["asset_id"], row["price"]) for row in rows} == {
        ("bitcoin", Decimal(64000)),
        ("tether", Decimal("0.9998")),
        ("usd-coin", Decimal("1.0001")),
    }
    assert {row["poll_id"] for row in rows} == {"poll-1", "poll-4"}
    assert [(lineage[2], reason) for lineage, reason in sorted(lake_of.stored_rejected(tables))] == [
        (1, "currency_suspect")
    ] * 3
