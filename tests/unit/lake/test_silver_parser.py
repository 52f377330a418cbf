"""What the parser in Spark's workers puts out, called without Spark: items, rejected items and tallies that agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from marketflow.lake import silver_parse
from marketflow.lake.silver_sources import CANDLES, PRICES, QUOTES, TRADES, Source
from tests.candle_pages import EXCHANGE, EXCHANGE_HEADERS, NOON
from tests.candle_pages import RECEIVED_US as PAGE_RECEIVED_US

INGESTED = datetime(2026, 3, 10, 12, 5, tzinfo=UTC)
RECEIVED_US = 1_773_144_001_000_000
HEADERS = {
    "venue": "coinbase_exchange",
    "channel": "matches",
    "origin": "simulated",
    "received_at": str(RECEIVED_US),
}
MATCH = {
    **{"type": "match", "trade_id": 7, "side": "sell", "size": "0.5", "price": "3"},
    **{"product_id": "BTC-USD", "sequence": 70, "time": "2026-03-10T12:00:00.123456Z"},
}
TICKER = {
    **{"type": "ticker", "sequence": 9, "product_id": "BTC-USD", "price": "3", "best_bid": "2", "best_ask": "4"},
    **{"time": "2026-03-10T12:00:00.000000Z", "trade_id": 7},
}


def run(source: Source, messages: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by kind, for messages of (headers, value) at offsets from 100."""
    values = [json.dumps(value).encode() if isinstance(value, (dict, list)) else value for _, value in messages]
    headers = [json.dumps(header) if isinstance(header, dict) else header for header, _ in messages]
    batch = pa.record_batch(
        {
            "topic": pa.array(["t"] * len(messages)),
            "partition": pa.array([3] * len(messages), pa.int32()),
            "offset": pa.array(range(100, 100 + len(messages)), pa.int64()),
            "ingested_at": pa.array([INGESTED] * len(messages), pa.timestamp("us", "UTC")),
            "headers": pa.array(headers, pa.string()),
            "value": pa.array(values, pa.binary()),
        }
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for out in silver_parse.parser(source)(iter([batch])):
        for row in out.to_pylist():
            found.setdefault(row["kind"], []).append(row)
    return found


def test_a_trade_keeps_exact_numbers_its_lineage_and_the_takers_side() -> None:
    (item,) = run(TRADES, [(HEADERS, MATCH)])["item"]
    expected = {
        **{"venue": "coinbase_exchange", "product_id": "BTC-USD", "trade_id": 7, "sequence": 70},
        **{"price": Decimal(3), "size": Decimal("0.5"), "notional": Decimal("1.5"), "taker_side": "buy"},
        **{"event_ts": datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC), "origin": "simulated"},
        **{"received_at": datetime(2026, 3, 10, 12, 0, 1, tzinfo=UTC), "ingested_at": INGESTED},
        **{"topic": "t", "partition": 3, "offset": 100, "item_index": 0},
    }
    assert {name: item[name] for name in expected} == expected


def test_a_trade_whose_numbers_were_floats_says_so_and_no_other_does() -> None:
    polled = {
        **{"id": "8", "timestamp": RECEIVED_US // 1000, "symbol": "BTC/USD", "side": "sell"},
        **{"price": 0.1, "amount": 3.0},
    }
    headers = {**HEADERS, "venue": "ccxt_kraken", "channel": "fetch_trades", "product_id": "BTC-USD"}
    found = run(TRADES, [(HEADERS, MATCH), (headers, [polled])])["item"]
    told = {row["venue"]: (row["price"], row["float_born"]) for row in found}
    assert told == {"coinbase_exchange": (Decimal(3), None), "ccxt_kraken": (Decimal("0.1"), True)}


def test_tallies_count_messages_items_offsets_and_ids() -> None:
    page = [
        {"trade_id": n, "side": "buy", "size": "1", "price": "2", "time": "2026-03-10T12:00:00Z"} for n in (9, 9, 8)
    ]
    rest = {**HEADERS, "channel": "trades", "product_id": "BTC-USD", "http_status": "200"}
    found = run(
        TRADES,
        [(HEADERS, MATCH), (rest, page), (HEADERS, {"type": "heartbeat"}), (HEADERS, b"{"), (HEADERS, {"type": "odd"})],
    )
    messages = {row["tally_name"]: row["tally_count"] for row in found["message"]}
    assert messages == {"parsed": 2, "ignored:heartbeat": 1, "unparseable": 1, "ignored:unknown:odd": 1}
    assert [row["tally_count"] for row in found["items"]] == [5]
    assert [(r["topic"], r["partition"], r["tally_first"], r["tally_last"]) for r in found["offsets"]] == [
        ("t", 3, 100, 104)
    ]
    assert [(r["tally_first"], r["tally_last"]) for r in found["ids"]] == [(7, 9)]
    assert [row["trade_id"] for row in found["item"]] == [7, 8]
    assert [(row["trade_id"], row["item_index"]) for row in found["suspect"]] == [(9, 0), (9, 1)]
    assert [row["tally_count"] for row in found["suspects"]] == [2]


def test_an_item_of_another_kind_than_the_table_takes_is_an_unexpected_shape() -> None:
    (row,) = run(TRADES, [(HEADERS, TICKER)])["rejected"]
    assert (row["reason"], row["item_index"]) == ("unexpected_shape", 0)
    assert row["detail"] == "a Quote does not belong in silver.trades"
    (row,) = run(QUOTES, [(HEADERS, MATCH)])["rejected"]
    assert row["detail"] == "a Trade does not belong in silver.quotes"


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({k: v for k, v in HEADERS.items() if k != "received_at"}, "header received_at is missing"),
        ({k: v for k, v in HEADERS.items() if k != "origin"}, "header origin is missing"),
        ({**HEADERS, "origin": "elsewhere"}, "header origin is 'elsewhere', none of live, simulated"),
        ({**HEADERS, "received_at": "253402300800000000"}, "header received_at is '253402300800000000', not micro"),
        ("{not json", "bronze's headers cannot be read"),
        (None, "header venue is missing"),
        ({**HEADERS, "venue": None}, "header venue is missing"),
    ],
)
def test_headers_that_the_table_needs_and_lacks_reject_the_message_with_its_bytes(headers: Any, detail: str) -> None:
    found = run(TRADES, [(headers, MATCH)])
    (row,) = found["rejected"]
    assert (row["reason"], row["item_index"], row["offset"]) == ("bad_headers", -1, 100)
    assert row["detail"].startswith(detail)
    assert json.loads(row["value"]) == MATCH
    assert {r["tally_name"]: r["tally_count"] for r in found["message"]} == {"unparseable": 1}


def test_a_page_of_prices_without_its_polls_headers_is_rejected() -> None:
    asset = {
        **{"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "current_price": 3, "market_cap": 1},
        "last_updated": "2026-03-10T12:00:00.000Z",
    }
    headers = {**HEADERS, "venue": "coingecko", "channel": "markets", "vs_currency": "usd", "http_status": "200"}
    (row,) = run(PRICES, [(headers, [asset])])["rejected"]
    assert (row["reason"], row["detail"]) == ("bad_headers", "header poll_id is missing")
    whole = {**headers, "poll_id": "p1", "poll_started_at": str(RECEIVED_US - 5)}
    (item,) = run(PRICES, [(whole, [asset])])["item"]
    assert (item["asset_id"], item["price"], item["poll_id"]) == ("bitcoin", Decimal(3), "p1")
    assert item["poll_started_at"] == datetime(2026, 3, 10, 12, 0, 0, 999_995, tzinfo=UTC)


def test_a_record_without_value_is_rejected_as_malformed() -> None:
    (row,) = run(TRADES, [(HEADERS, None)])["rejected"]
    assert (row["reason"], row["value"]) == ("malformed", None)


def test_a_page_of_candles_gives_rows_known_by_their_opening_in_their_interval() -> None:
    found = run(CANDLES, [(EXCHANGE_HEADERS, EXCHANGE), (EXCHANGE_HEADERS | {"interval": "1h"}, b"[]")])
    rows = [(row["interval"], row["open_ts"], row["volume"], row["item_index"], row["origin"]) for row in found["item"]]
    assert rows == [
        ("1m", NOON + timedelta(minutes=1), Decimal("1.234567890123456789"), 1, "backfill"),
        ("1m", NOON, Decimal("0.00000025"), 2, "backfill"),
    ]
    assert {row["received_at"] for row in found["item"]} == {NOON + timedelta(seconds=150)}
    assert [(row["reason"], row["item_index"]) for row in found["rejected"]] == [("incomplete_candle", 0)]
    start = PAGE_RECEIVED_US - 150_000_000
    group = silver_parse.GROUP_SEPARATOR.join(("coinbase_exchange", "BTC-USD", "1m"))
    assert [(row["tally_name"], row["tally_first"], row["tally_last"]) for row in found["ids"]] == [
        (group, opened, opened) for opened in (start, start + 60_000_000)
    ]
