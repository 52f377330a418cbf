"""The judge's own reader of bytes: exact, strict, and never raising."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.verify.wire import Item, Message, read

PRODUCTS = frozenset({"BTC-USD"})
MATCH = {
    **{"type": "match", "trade_id": 7, "side": "sell", "size": "0.10", "price": "60000.01", "product_id": "BTC-USD"},
    **{"sequence": 9, "time": "2026-07-07T12:00:00.123456Z"},
}
TICKER = {
    **{"type": "ticker", "sequence": 9, "product_id": "BTC-USD", "price": "2", "best_bid": "1.5", "best_ask": "2.5"},
    **{"time": "2026-07-07T12:00:00.123456Z", "trade_id": 7},
}
COIN = {
    **{"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "market_cap": 1555886872303, "max_supply": None},
    "last_updated": "2026-07-07T11:59:21.599Z",
}
RECEIVED = 1_783_425_600_500_000  # 2026-07-07T12:00:00.5Z
FEED = Message(b"", "coinbase_exchange", "matches", RECEIVED, None, None, None, None, None, None)
PAGE = replace(FEED, channel="trades", http_status=200, product_id="BTC-USD")
MARKETS = Message(b"", "coingecko", "markets", RECEIVED, 200, None, "USD", "p1", RECEIVED - 1, None)


def of(message: Message, body: Any) -> list[Item]:
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(replace(message, value=value), PRODUCTS)


def test_a_match_is_a_trade_of_the_taker_whose_side_is_the_other() -> None:
    (item,) = of(FEED, MATCH)
    assert item == Item(
        0,
        "trades",
        {
            **{"venue": "coinbase_exchange", "product_id": "BTC-USD", "trade_id": 7, "price": Decimal("60000.01")},
            **{"size": Decimal("0.1"), "taker_side": "buy", "side_raw": "sell", "sequence": 9},
            "event_ts": 1_783_425_600_123_456,
        },
    )


def test_a_rest_page_gives_a_trade_an_element_and_refuses_the_broken_one() -> None:
    items = of(PAGE, [MATCH, 7, {**MATCH, "size": "0"}])
    assert [(item.index, item.kind) for item in items] == [(0, "trades"), (1, "refused"), (2, "refused")]


@pytest.mark.parametrize(
    "change",
    [
        {"price": "1e-19"},  # more than 18 fraction digits
        {"price": "100000000000000000000"},  # 21 integer digits
        {"price": "1_000"},
        # a notional that rounding takes to 10^20
        {"price": "10000000000.000000000000000001", "size": "9999999999.999999999999999999"},
        {"size": "-1"},
        {"size": "0"},
        {"size": None},
        {"side": "up"},
        {"trade_id": "7"},
        {"trade_id": 2**63},
        {"product_id": "ABC-USD"},
        {"time": "0001-01-01T00:00:00Z"},
        {"time": "2026-07-07T12:01:01Z"},  # 60.5 s after receipt
        {"time": "2026-02-30T12:00:00Z"},
        {"time": "2026-07-07T12:00:00"},  # no zone
    ],
)
def test_what_cannot_be_a_trade_is_refused_as_its_item(change: dict[str, Any]) -> None:
    assert [(item.index, item.kind) for item in of(FEED, MATCH | change)] == [(0, "refused")]


def test_numbers_keep_every_digit_that_was_written() -> None:
    body = json.dumps([COIN])[:-2] + ', "current_price": 0.000000123456789012}]'
    (item,) = of(MARKETS, body.encode())
    assert item.kind == "asset_prices"
    assert item.fields["price"] == Decimal("0.000000123456789012")
    assert item.fields["market_cap"] == Decimal(1555886872303)
    assert item.fields["max_supply"] is None
    assert item.fields["vs_currency"] == "usd"
    assert item.fields["last_updated"] == 1_783_425_561_599_000


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b'{"type":"match",}', b'{"type": NaN}', b"[1]", b"7", b"{}", b'{"type":7}', b"[" * 5000]
)
def test_a_message_that_is_no_message_is_refused_as_a_whole(value: bytes) -> None:
    assert [(item.index, item.kind) for item in of(FEED, value)] == [(-1, "refused")]


@pytest.mark.parametrize("body", [{"type": "heartbeat"}, {"type": "subscriptions"}, {"type": "news", "of": "today"}])
def test_a_message_without_data_has_no_items(body: dict[str, Any]) -> None:
    assert of(FEED, body) == []


def test_statuses_other_than_200_carry_no_data_and_oversize_is_refused() -> None:
    assert of(replace(PAGE, http_status=429), b"{") == []
    assert [item.index for item in of(replace(FEED, oversize=True), MATCH)] == [-1]
    assert [item.index for item in of(replace(FEED, received_at=None), MATCH)] == [-1]
    assert [item.index for item in of(replace(FEED, venue="kraken"), MATCH)] == [-1]


def test_a_ticker_is_a_quote_and_a_crossed_one_is_refused() -> None:
    (item,) = of(FEED, TICKER)
    assert item.kind == "quotes"
    assert (item.fields["best_bid"], item.fields["last_price"], item.fields["last_trade_id"]) == (
        Decimal("1.5"),
        Decimal(2),
        7,
    )
    assert [one.kind for one in of(FEED, TICKER | {"best_bid": "2.6"})] == ["refused"]


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_bytes_raise(value: bytes) -> None:
    for message in (FEED, PAGE, MARKETS):
        read(replace(message, value=value), PRODUCTS)
