"""Coinbase Advanced Trade's tickers, and what a feed must know of a message before it passes it on."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Item, Parsed, Quote, RejectedItem, Trade, Unparseable
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.venues import coinbase_advanced

RECEIVED = 1_767_160_813_000_000  # 2025-12-31T06:00:13Z
HEADERS = {"venue": "coinbase_advanced", "channel": "ticker", "received_at": str(RECEIVED)}
TIMESTAMP = "2025-12-31T06:00:12.516946132Z"

TICKER_ELEMENT = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "88355.59",
    "volume_24_h": "5410.75570938",
    "low_24_h": "87422.74",
    "high_24_h": "89041.99",
    "low_52_w": "74420.69",
    "high_52_w": "126296",
    "price_percent_chg_24_h": "-1.22433037972686",
    "best_bid": "88355.58",
    "best_bid_quantity": "0.02944129",
    "best_ask": "88355.59",
    "best_ask_quantity": "0.16980542",
}


ABSENT = object()


def message(*elements: object, timestamp: object = TIMESTAMP) -> bytes:
    events = [{"type": "update", "tickers": [element]} for element in elements]
    envelope = {"channel": "ticker", "timestamp": timestamp, "sequence_num": 1851, "events": events}
    return json.dumps(envelope).encode()


def changed(change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**TICKER_ELEMENT, **change}.items() if value is not ABSENT}


def items(value: bytes) -> tuple[Item, ...]:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def test_a_ticker_is_a_quote_at_the_time_of_its_envelope() -> None:
    quote = Quote(
        venue="coinbase_advanced",
        product_id="BTC-USD",
        sequence=None,
        event_us=1_767_160_812_516_946,
        best_bid=Decimal("88355.58"),
        best_bid_size=Decimal("0.02944129"),
        best_ask=Decimal("88355.59"),
        best_ask_size=Decimal("0.16980542"),
        last_price=Decimal("88355.59"),
        last_trade_id=None,
        open_24h=None,
        high_24h=Decimal("89041.99"),
        low_24h=Decimal("87422.74"),
        volume_24h=Decimal("5410.75570938"),
    )
    assert items(message(TICKER_ELEMENT)) == (quote,)
    (bare,) = items(json.dumps(TICKER_ELEMENT).encode())  # as a recorder keeps it: no time but its receipt's
    assert isinstance(bare, Quote)
    assert bare.event_us == RECEIVED
    assert (bare.best_bid, bare.best_ask, bare.last_price) == (quote.best_bid, quote.best_ask, quote.last_price)
    sparse = changed({"best_bid_quantity": None, "price": ABSENT, "best_ask": "88355.58"})
    (locked,) = items(message(sparse))
    assert isinstance(locked, Quote)
    assert (locked.best_bid_size, locked.last_price, locked.best_ask) == (None, None, locked.best_bid)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"best_bid": "88355.60"}, Reason.CROSSED_QUOTE),
        ({"best_bid": "0"}, Reason.NOT_POSITIVE),
        ({"best_ask": None}, Reason.MISSING_FIELD),
        ({"best_ask": ABSENT}, Reason.MISSING_FIELD),
        ({"best_ask": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),
        ({"best_bid_quantity": "-1"}, Reason.OUT_OF_RANGE),
        ({"volume_24_h": "1" * 21}, Reason.OUT_OF_RANGE),
        ({"price": "0"}, Reason.NOT_POSITIVE),
        ({"high_24_h": []}, Reason.WRONG_TYPE),
        ({"product_id": "BTC-EUR"}, Reason.UNKNOWN_PRODUCT),
    ],
)
def test_one_bad_quote_is_refused_by_name_and_its_neighbours_stay(change: dict[str, object], reason: Reason) -> None:
    eth = TICKER_ELEMENT | {"product_id": "ETH-USD"}
    before, bad, after = items(message(TICKER_ELEMENT, changed(change), eth))
    assert isinstance(bad, RejectedItem)
    assert bad.reason is reason
    assert [quote.product_id for quote in (before, after) if isinstance(quote, Quote)] == ["BTC-USD", "ETH-USD"]


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (None, Reason.MISSING_FIELD),
        ("0001-01-01T00:00:00Z", Reason.TIME_BEFORE_2009),
        ("2025-12-31T06:01:13.000001Z", Reason.TIME_IN_FUTURE),
        ("2025-12-31T06:00:12", Reason.BAD_TIME),
    ],
)
def test_only_quotes_need_the_envelopes_time(timestamp: str | None, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, message(TICKER_ELEMENT, timestamp=timestamp))
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason
    trade = {"product_id": "BTC-USD", "trade_id": "7", "price": "1", "size": "2", "side": "BUY"}
    events = [{"type": "update", "trades": [trade | {"time": TIMESTAMP}]}]
    (kept,) = items(json.dumps({"channel": "market_trades", "timestamp": timestamp, "events": events}).encode())
    assert isinstance(kept, Trade)
    assert kept.event_us == 1_767_160_812_516_946


def test_tickers_of_one_event_keep_their_order_and_elements_that_are_none_are_named() -> None:
    eth = TICKER_ELEMENT | {"product_id": "ETH-USD"}
    events = [{"type": "snapshot", "tickers": [eth, 7, None, {}, TICKER_ELEMENT]}]
    envelope = {"channel": "ticker", "timestamp": TIMESTAMP, "events": events}
    found = items(json.dumps(envelope).encode())
    assert [item.product_id for item in found if isinstance(item, Quote)] == ["ETH-USD", "BTC-USD"]
    assert [item.reason if isinstance(item, RejectedItem) else "" for item in found] == [
        "",
        Reason.UNEXPECTED_SHAPE,
        Reason.UNEXPECTED_SHAPE,
        Reason.MISSING_FIELD,
        "",
    ]


@pytest.mark.parametrize("events", [[], [{"type": "snapshot", "tickers": []}]])
def test_a_ticker_message_without_tickers_is_ignored_by_name(events: list[object]) -> None:
    value = json.dumps({"channel": "ticker", "timestamp": TIMESTAMP, "events": events}).encode()
    assert venues.parse(HEADERS, value) == Ignored("empty_events")


def test_one_bad_event_takes_no_quote_of_its_neighbours_with_it() -> None:
    events = [{"type": "update", "tickers": [TICKER_ELEMENT]}, {"type": "update"}]
    outcome = venues.parse(
        HEADERS, json.dumps({"channel": "ticker", "timestamp": TIMESTAMP, "events": events}).encode()
    )
    kept = [item.product_id for item in getattr(outcome, "items", ()) if isinstance(item, Quote)]
    assert kept == ["BTC-USD"]


def test_only_tickers_leave_the_trades_topic() -> None:
    assert coinbase_advanced.topic_of(message(TICKER_ELEMENT)) is TICKER
    for channel in (b"market_trades", b"heartbeats", b"subscriptions", b"l2_data", b"ticker_batch"):
        assert coinbase_advanced.topic_of(b'{"channel":"%s","sequence_num":1}' % channel) is TRADES
    assert coinbase_advanced.topic_of(b"\xff") is TRADES


def test_a_feed_subscribes_channel_by_channel_and_holds_no_secret() -> None:
    products = ["BTC-USD", "ETH-USD"]
    assert [json.loads(message) for message in coinbase_advanced.subscribe(("BTC-USD", "ETH-USD"))] == [
        {"type": "subscribe", "product_ids": products, "channel": "market_trades"},
        {"type": "subscribe", "product_ids": products, "channel": "ticker"},
        {"type": "subscribe", "product_ids": products, "channel": "heartbeats"},  # keeps an idle connection open
    ]
