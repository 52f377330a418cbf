"""Coinbase Advanced Trade: batches and pages of trades, exact, the maker's side turned into the taker's."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Item, Parsed, RejectedItem, Side, Trade, Unparseable

RECEIVED = 1_767_160_813_000_000  # 2025-12-31T06:00:13Z
HEADERS = {"venue": "coinbase_advanced", "channel": "market_trades", "received_at": str(RECEIVED)}
REST = HEADERS | {"channel": "trades", "http_status": "200"}

# the public adapter's fixture of 2025-12-31, one trade
TRADE = {
    "product_id": "BTC-USD",
    "trade_id": "929248657",
    "price": "88355.59",
    "size": "0.00136573",
    "time": "2025-12-31T06:00:12.44524Z",
    "side": "SELL",
}
ABSENT = object()


def message(channel: str, *events: object, **change: object) -> bytes:
    envelope = {
        "channel": channel,
        "client_id": "",
        "timestamp": "2025-12-31T06:00:12.516946132Z",
        "sequence_num": 1851,
        "events": events,
    }
    return json.dumps(envelope | change).encode()


def trades(*elements: object, kind: str = "update") -> dict[str, object]:
    return {"type": kind, "trades": elements}


def changed(element: dict[str, str], change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**element, **change}.items() if value is not ABSENT}


def items(value: bytes, headers: dict[str, str] = HEADERS) -> tuple[Item, ...]:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


@pytest.mark.parametrize(("side_raw", "taker_side"), [("SELL", "buy"), ("BUY", "sell")])
def test_a_trade_is_exact_with_its_own_time_and_the_takers_side(side_raw: str, taker_side: Side) -> None:
    expected = Trade(
        venue="coinbase_advanced",
        product_id="BTC-USD",
        trade_id=929248657,
        price=Decimal("88355.59"),
        size=Decimal("0.00136573"),
        notional=Decimal("120.6698799307"),
        taker_side=taker_side,
        side_raw=side_raw,
        event_us=1_767_160_812_445_240,  # the trade's, not the envelope's
        sequence=None,  # sequence_num counts messages of a connection, not events of a product
    )
    trade = TRADE | {"side": side_raw}
    assert items(message("market_trades", trades(trade))) == (expected,)
    assert items(json.dumps({"trades": [trade], "best_bid": "1", "best_ask": "2"}).encode(), REST) == (expected,)


def test_a_batch_keeps_its_order_over_all_its_events_and_snapshots_count() -> None:
    snapshot = trades(TRADE | {"trade_id": "3"}, TRADE | {"trade_id": "2", "product_id": "ETH-USD"}, kind="snapshot")
    batch = items(message("market_trades", snapshot, trades(), trades(TRADE | {"trade_id": "9"}), client_id=None))
    kept = [(trade.trade_id, trade.product_id) for trade in batch if isinstance(trade, Trade)]
    assert kept == [(3, "BTC-USD"), (2, "ETH-USD"), (9, "BTC-USD")]


BAD_TRADES: list[tuple[dict[str, object], Reason]] = [
    ({"price": "0"}, Reason.NOT_POSITIVE),
    ({"size": "-0.001"}, Reason.NOT_POSITIVE),
    ({"size": None}, Reason.MISSING_FIELD),
    ({"price": ABSENT}, Reason.MISSING_FIELD),
    ({"price": ""}, Reason.MISSING_FIELD),
    ({"price": "NaN"}, Reason.WRONG_TYPE),
    ({"price": "1_000"}, Reason.WRONG_TYPE),
    ({"price": "١٢"}, Reason.WRONG_TYPE),  # digits to Decimal(), not to us
    ({"price": False}, Reason.WRONG_TYPE),
    ({"size": {}}, Reason.WRONG_TYPE),
    ({"price": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),  # 19 fraction digits
    ({"size": "1" + "0" * 20}, Reason.OUT_OF_RANGE),  # 21 integer digits
    ({"price": "9" * 20, "size": "9" * 20}, Reason.OUT_OF_RANGE),  # each fits, their product does not
    ({"trade_id": "9223372036854775808"}, Reason.OUT_OF_RANGE),
    ({"trade_id": "9" * 5000}, Reason.OUT_OF_RANGE),
    ({"trade_id": "-1"}, Reason.WRONG_TYPE),
    ({"trade_id": "1.0"}, Reason.WRONG_TYPE),
    ({"trade_id": "٣"}, Reason.WRONG_TYPE),
    ({"trade_id": "²"}, Reason.WRONG_TYPE),  # isdigit() takes it, int() does not
    ({"trade_id": ""}, Reason.MISSING_FIELD),
    ({"trade_id": None}, Reason.MISSING_FIELD),
    ({"product_id": "BTC-USDX"}, Reason.UNKNOWN_PRODUCT),
    ({"product_id": "btc-usd"}, Reason.UNKNOWN_PRODUCT),
    ({"product_id": 7}, Reason.WRONG_TYPE),
    ({"side": "sell"}, Reason.UNKNOWN_SIDE),
    ({"side": "UNKNOWN_ORDER_SIDE"}, Reason.UNKNOWN_SIDE),
    ({"side": None}, Reason.MISSING_FIELD),
    ({"side": 1}, Reason.WRONG_TYPE),
    ({"time": "0001-01-01T00:00:00Z"}, Reason.TIME_BEFORE_2009),
    ({"time": "2008-12-31T23:59:59.999999Z"}, Reason.TIME_BEFORE_2009),
    ({"time": "2025-12-31T06:01:13.000001Z"}, Reason.TIME_IN_FUTURE),  # one microsecond beyond a minute
    ({"time": "2025-12-31T06:00:12"}, Reason.BAD_TIME),  # without a zone it is no moment
    ({"time": "2025-12-31 06:00:12.000000000 +0000 UTC"}, Reason.BAD_TIME),  # as heartbeats write it
    ({"time": 1767160812}, Reason.BAD_TIME),
    ({"time": ABSENT}, Reason.MISSING_FIELD),
]


@pytest.mark.parametrize(("change", "reason"), BAD_TRADES)
def test_one_bad_trade_is_refused_by_name_and_its_neighbours_stay(change: dict[str, object], reason: Reason) -> None:
    batch = (TRADE | {"trade_id": "1"}, changed(TRADE, change), TRADE | {"trade_id": "3"})
    found = items(message("market_trades", trades(*batch)))
    assert found == items(json.dumps({"trades": batch}).encode(), REST)
    before, bad, after = found
    assert isinstance(bad, RejectedItem)
    assert bad.reason is reason
    assert bad.detail.startswith((next(iter(change)), "notional"))
    assert isinstance(before, Trade)
    assert isinstance(after, Trade)
    assert (before.trade_id, after.trade_id) == (1, 3)


def test_elements_that_are_no_trades_are_named_each() -> None:
    found = items(message("market_trades", trades(7, None, "x", [], {}, TRADE)))
    reasons = [item.reason for item in found if isinstance(item, RejectedItem)]
    assert reasons == [*[Reason.UNEXPECTED_SHAPE] * 4, Reason.MISSING_FIELD]
    assert isinstance(found[5], Trade)


@pytest.mark.parametrize("bad", [7, None, [], {}, {"type": "update"}, {"trades": None}, {"trades": {}}])
def test_one_bad_event_takes_no_trade_of_its_neighbours_with_it(bad: object) -> None:
    outcome = venues.parse(HEADERS, message("market_trades", trades(TRADE), bad, trades(TRADE | {"trade_id": "9"})))
    kept = [item.trade_id for item in getattr(outcome, "items", ()) if isinstance(item, Trade)]
    assert kept == [929248657, 9]


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"price": "9" * 20 + "." + "9" * 18, "size": "0.1"}, "price", Decimal("9" * 20 + "." + "9" * 18)),
        ({"price": "1." + "0" * 30}, "price", Decimal(1)),  # trailing zeros are no digits
        ({"size": "1e-8"}, "size", Decimal("0.00000001")),
        ({"price": 0.1}, "price", Decimal("0.1")),  # a JSON number is read from its text
        ({"trade_id": "9223372036854775807"}, "trade_id", 2**63 - 1),
        ({"time": "2025-12-31T06:01:13Z"}, "event_us", RECEIVED + 60_000_000),
        ({"time": "2009-01-01T00:00:00Z"}, "event_us", 1_230_768_000_000_000),
        ({"time": "2025-12-31T08:00:12.44524+02:00"}, "event_us", 1_767_160_812_445_240),
        ({"time": "2025-12-31T06:00:12.999999600Z"}, "event_us", RECEIVED),  # rounded to the microsecond
        ({"price": "0.000000000000000003", "size": "0.5"}, "notional", Decimal("0.000000000000000002")),  # a tie
        ({"price": "0.000000000000000001", "size": "0.5"}, "notional", Decimal(0)),  # a tie, to the even 0
        ({"price": "0.000000000000000001", "size": "0.51"}, "notional", Decimal("0.000000000000000001")),
    ],
)
def test_the_edge_of_every_limit_is_accepted_exactly(change: dict[str, object], field: str, expected: object) -> None:
    (item,) = items(message("market_trades", trades(TRADE | change)))
    assert getattr(item, field) == expected


HEARTBEAT_TIME = "2026-04-07 14:30:10.000000000+00:00"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (message("heartbeats", {"current_time": HEARTBEAT_TIME, "heartbeat_counter": 42}), "heartbeat"),
        (message("heartbeats", {"current_time": HEARTBEAT_TIME, "heartbeat_counter": "42"}), "heartbeat"),
        (message("subscriptions", {"subscriptions": {"market_trades": ["BTC-USD"]}}), "subscriptions"),
        (message("ticker_batch", {"tickers": [{"product_id": "BTC-USD"}]}), "unknown:ticker_batch"),
        (message("l2_data", {"type": "snapshot", "updates": []}), "unknown:l2_data"),
        (message("candles", {"type": "snapshot", "candles": []}), "unknown:candles"),
        (message("a\x01b"), "unknown:a?b"),  # a name is shown to people
        (message("x" * 99), "unknown:" + "x" * 40),
        (b'{"type":"error","message":"too many subscriptions"}', "venue_error"),
        (b'{"type":"weather"}', "unknown:weather"),
        (message("market_trades"), "empty_events"),
        (message("market_trades", trades()), "empty_events"),
    ],
)
def test_a_message_without_data_is_ignored_by_name(value: bytes, name: str) -> None:
    assert venues.parse(HEADERS, value) == Ignored(name)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"null", Reason.UNEXPECTED_SHAPE),
        (b"[]", Reason.UNEXPECTED_SHAPE),
        (b"[[[[", Reason.MALFORMED),
        (b"{}", Reason.UNEXPECTED_SHAPE),
        (b'{"channel":7}', Reason.WRONG_TYPE),
        (b'{"type":[]}', Reason.WRONG_TYPE),
        (b'{"channel":"market_trades"', Reason.MALFORMED),
        (b'{"channel":"market_trades"}', Reason.MISSING_FIELD),
        (b'{"channel":"market_trades","events":null}', Reason.MISSING_FIELD),
        (b'{"channel":"market_trades","events":{}}', Reason.UNEXPECTED_SHAPE),
        (b'{"channel":"heartbeats"}{}', Reason.MALFORMED),
        (b'{"channel":"heartbeats","x":"\xff"}', Reason.MALFORMED),  # not UTF-8 where nobody looks
        pytest.param(b'{"a":' * 100_000, Reason.MALFORMED, id="deep"),
    ],
)
def test_a_message_that_is_no_message_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"error":"NOT_FOUND","message":"no such product"}', Reason.MISSING_FIELD),  # an error object with status 200
        (b'{"trades":null}', Reason.MISSING_FIELD),
        (b'{"trades":{}}', Reason.UNEXPECTED_SHAPE),
        (b"[]", Reason.UNEXPECTED_SHAPE),
        (b'{"trades":[', Reason.MALFORMED),
    ],
)
def test_a_page_without_its_trades_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(REST, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


def test_an_empty_page_is_ignored_and_a_status_decides_before_the_bytes() -> None:
    assert venues.parse(REST, b'{"trades":[],"best_bid":"","best_ask":""}') == Ignored("empty_page")
    assert venues.parse(REST | {"http_status": "429"}, b"slow down") == Ignored("http_429")
