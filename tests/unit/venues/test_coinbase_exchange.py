"""Coinbase messages: what is accepted, to the last digit, and the name under which each bad one is refused."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Parsed, Quote, RejectedItem, Trade, Unparseable
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.venues import coinbase_exchange

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures" / "coinbase"
MATCHES = (CAPTURES / "exchange-matches-btc-eth-2026-07-07.filtered.ndjson").read_bytes().splitlines()
PAIRS = (CAPTURES / "cryptofeed-exchange-2021-04-17.match-ticker.ndjson").read_bytes().splitlines()
RECEIVED = 1_783_465_200_000_000  # 2026-07-07T23:00:00Z
HEADERS = {"venue": "coinbase_exchange", "channel": "matches", "received_at": str(RECEIVED)}

MATCH = {
    "type": "match",
    "trade_id": 280232,
    "side": "sell",
    "size": "985",
    "price": "0.00001305",
    "product_id": "SKL-BTC",
    "sequence": 177100030,
    "time": "2021-04-17T16:43:37.089723Z",
}
TICKER_MESSAGE = {
    "type": "ticker",
    "sequence": 177100030,
    "product_id": "SKL-BTC",
    "price": "0.00001305",
    "open_24h": "0.00001144",
    "volume_24h": "7367714.40000000",
    "low_24h": "0.00001122",
    "high_24h": "0.00001337",
    "best_bid": "0.00001303",
    "best_ask": "0.00001305",
    "side": "buy",
    "time": "2021-04-17T16:43:37.089723Z",
    "trade_id": 280232,
    "last_size": "985",
}


def only(message: dict[str, object] | bytes, **headers: str) -> object:
    value = message if isinstance(message, bytes) else json.dumps(message).encode()
    outcome = venues.parse(HEADERS | headers, value)
    assert isinstance(outcome, Parsed)
    assert len(outcome.items) == 1
    return outcome.items[0]


def test_a_match_becomes_one_exact_trade_with_the_takers_side() -> None:
    assert only(MATCH) == Trade(
        venue="coinbase_exchange",
        product_id="SKL-BTC",
        trade_id=280232,
        price=Decimal("0.00001305"),
        size=Decimal(985),
        notional=Decimal("0.01285425"),
        taker_side="buy",
        side_raw="sell",
        event_us=1_618_677_817_089_723,
        sequence=177100030,
    )


def test_every_message_of_the_one_minute_capture_is_a_trade_or_ignored_by_name() -> None:
    outcomes = [venues.parse(HEADERS, line) for line in MATCHES]
    trades = [item for outcome in outcomes if isinstance(outcome, Parsed) for item in outcome.items]
    assert sorted(outcome.name for outcome in outcomes if isinstance(outcome, Ignored)) == (
        ["heartbeat"] * 118 + ["subscriptions"]
    )
    assert len(trades) == 437
    # read the obvious way, by another library and another route to microseconds
    expected = [json.loads(line) for line in MATCHES if b'match"' in line]
    for trade, message in zip(trades, expected, strict=True):
        with localcontext(prec=60):
            product = Decimal(message["price"]) * Decimal(message["size"])
        assert isinstance(trade, Trade)
        assert (trade.trade_id, trade.price, trade.size) == (
            message["trade_id"],
            Decimal(message["price"]),
            Decimal(message["size"]),
        )
        assert trade.notional == product
        assert {trade.taker_side, message["side"]} == {"buy", "sell"}
        assert trade.event_us == round(datetime.fromisoformat(message["time"]).timestamp() * 1_000_000)


def test_the_tickers_own_side_confirms_the_flip_for_all_107_pairs() -> None:
    messages = [json.loads(line) for line in PAIRS]
    ticker_sides = {(m["product_id"], m["trade_id"]): m["side"] for m in messages if m["type"] == "ticker"}
    items = [item for line in PAIRS for item in _items(line)]
    trades = [item for item in items if isinstance(item, Trade)]
    assert len(trades) == 107
    assert all(trade.taker_side == ticker_sides[trade.product_id, trade.trade_id] for trade in trades)


def _items(line: bytes) -> tuple[object, ...]:
    outcome = venues.parse(HEADERS, line)
    assert isinstance(outcome, Parsed)
    return outcome.items


def test_a_ticker_becomes_one_quote_and_absent_sizes_stay_null() -> None:
    assert only(TICKER_MESSAGE, channel="ticker") == Quote(
        venue="coinbase_exchange",
        product_id="SKL-BTC",
        sequence=177100030,
        event_us=1_618_677_817_089_723,
        best_bid=Decimal("0.00001303"),
        best_bid_size=None,
        best_ask=Decimal("0.00001305"),
        best_ask_size=None,
        last_price=Decimal("0.00001305"),
        last_trade_id=280232,
        open_24h=Decimal("0.00001144"),
        high_24h=Decimal("0.00001337"),
        low_24h=Decimal("0.00001122"),
        volume_24h=Decimal("7367714.4"),
    )
    sized = only(TICKER_MESSAGE | {"best_bid_size": "0.61540890", "best_ask_size": "0.18528568"})
    assert isinstance(sized, Quote)
    assert (sized.best_bid_size, sized.best_ask_size) == (Decimal("0.6154089"), Decimal("0.18528568"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": "0"}, Reason.NOT_POSITIVE),
        ({"price": "0.000"}, Reason.NOT_POSITIVE),
        ({"size": "-1"}, Reason.NOT_POSITIVE),
        ({"size": None}, Reason.MISSING_FIELD),
        ({"price": ""}, Reason.MISSING_FIELD),
        ({"price": "NaN"}, Reason.WRONG_TYPE),
        ({"price": "Infinity"}, Reason.WRONG_TYPE),
        ({"price": "1_000"}, Reason.WRONG_TYPE),
        ({"price": " 1"}, Reason.WRONG_TYPE),
        ({"price": "١٢"}, Reason.WRONG_TYPE),  # digits to Decimal(), not to us
        ({"price": True}, Reason.WRONG_TYPE),
        ({"price": ["1"]}, Reason.WRONG_TYPE),
        ({"price": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),  # 19 fraction digits
        ({"price": "1" + "0" * 20}, Reason.OUT_OF_RANGE),  # 21 integer digits
        ({"price": "9" * 20, "size": "9" * 20}, Reason.OUT_OF_RANGE),  # each fits, their product does not
        ({"price": "1e400"}, Reason.OUT_OF_RANGE),
        ({"trade_id": 2**63}, Reason.OUT_OF_RANGE),
        ({"trade_id": -1}, Reason.OUT_OF_RANGE),
        ({"trade_id": "280232"}, Reason.WRONG_TYPE),
        ({"trade_id": 1.5}, Reason.WRONG_TYPE),
        ({"sequence": 2**63}, Reason.OUT_OF_RANGE),
        ({"product_id": "SKL-BTCX"}, Reason.UNKNOWN_PRODUCT),
        ({"product_id": 7}, Reason.WRONG_TYPE),
        ({"side": "SELL"}, Reason.UNKNOWN_SIDE),
        ({"side": None}, Reason.MISSING_FIELD),
        ({"time": "0001-01-01T00:00:00.000000Z"}, Reason.TIME_BEFORE_2009),
        ({"time": "2008-12-31T23:59:59.999999Z"}, Reason.TIME_BEFORE_2009),
        ({"time": "2026-07-07T23:01:00.000001Z"}, Reason.TIME_IN_FUTURE),  # one microsecond beyond a minute
        ({"time": "yesterday"}, Reason.BAD_TIME),
        ({"time": "2021-04-17T16:43:37"}, Reason.BAD_TIME),  # without a zone it is no moment
        ({"time": 1618677817}, Reason.BAD_TIME),
    ],
)
def test_a_bad_trade_is_refused_by_name(change: dict[str, object], reason: Reason) -> None:
    item = only(MATCH | change)
    assert isinstance(item, RejectedItem)
    assert item.reason is reason
    assert next(iter(change)) in item.detail or "notional" in item.detail


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"price": "9" * 20 + "." + "9" * 18, "size": "0.1"}, "price", Decimal("9" * 20 + "." + "9" * 18)),
        ({"price": "1." + "0" * 30}, "price", Decimal(1)),  # trailing zeros are no digits
        ({"price": "1e-8"}, "price", Decimal("0.00000001")),
        ({"price": 0.1}, "price", Decimal("0.1")),  # a JSON number is read from its text
        ({"trade_id": 2**63 - 1}, "trade_id", 2**63 - 1),
        ({"time": "2026-07-07T23:01:00.000000Z"}, "event_us", RECEIVED + 60_000_000),
        ({"time": "2009-01-01T00:00:00Z"}, "event_us", 1_230_768_000_000_000),
        ({"time": "2021-04-17T18:43:37.089723+02:00"}, "event_us", 1_618_677_817_089_723),
    ],
)
def test_the_edge_of_every_limit_is_accepted_exactly(change: dict[str, object], field: str, expected: object) -> None:
    item = only(MATCH | change)
    assert isinstance(item, Trade)
    assert getattr(item, field) == expected


@pytest.mark.parametrize(
    ("price", "size", "expected"),
    [
        ("0.000000000000000001", "0.5", "0"),  # a tie, to the even 0
        ("0.000000000000000003", "0.5", "0.000000000000000002"),  # a tie, to the even 2
        ("0.000000000000000001", "0.500000000000000001", "0.000000000000000001"),
        ("12345678901234567890.1", "1.000000000000000001", "12345678901234567902.445678901234567890"),
    ],
)
def test_notional_is_rounded_half_even_to_18_places_once(price: str, size: str, expected: str) -> None:
    item = only(MATCH | {"price": price, "size": size})
    assert isinstance(item, Trade)
    assert item.notional == Decimal(expected)


def test_a_notional_that_only_its_rounding_takes_out_of_range_is_refused() -> None:
    # below 10^20 by less than half of the last place
    item = only(MATCH | {"price": "10000000000.000000000000000001", "size": "9999999999.999999999999999999"})
    assert isinstance(item, RejectedItem)
    assert item.reason is Reason.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"best_bid": "0.00001306"}, Reason.CROSSED_QUOTE),
        ({"best_bid": "0"}, Reason.NOT_POSITIVE),
        ({"best_ask": None}, Reason.MISSING_FIELD),
        ({"volume_24h": "-1"}, Reason.OUT_OF_RANGE),
        ({"best_bid_size": "1" * 21}, Reason.OUT_OF_RANGE),
        ({"price": "0"}, Reason.NOT_POSITIVE),
        ({"time": "0001-01-01T00:00:00.000000Z"}, Reason.TIME_BEFORE_2009),
    ],
)
def test_a_bad_quote_is_refused_by_name(change: dict[str, object], reason: Reason) -> None:
    item = only(TICKER_MESSAGE | change, channel="ticker")
    assert isinstance(item, RejectedItem)
    assert item.reason is reason


def test_a_locked_quote_is_no_crossed_quote() -> None:
    assert isinstance(only(TICKER_MESSAGE | {"best_bid": "0.00001305"}), Quote)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD"}', "heartbeat"),
        (b'{"type":"subscriptions","channels":[]}', "subscriptions"),
        (b'{"type":"error","message":"Failed to subscribe"}', "venue_error"),
        (b'{"type":"status","products":[]}', "unknown:status"),
        (b'{"type":"a\\u0001b"}', "unknown:a?b"),  # a name is shown to people
        (b'{"type":"' + b"x" * 99 + b'"}', "unknown:" + "x" * 40),
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
        (b'{"type":7}', Reason.WRONG_TYPE),
        (b'{"type":"match"', Reason.MALFORMED),
        (b'{"type":"heartbeat"}{}', Reason.MALFORMED),
        (b'{"type":"match","maker_order_id":"\xff"}', Reason.MALFORMED),  # not UTF-8 where nobody looks
        (b'{"a":' * 100_000, Reason.MALFORMED),
        (b"\x1f\x8b\x08", Reason.MALFORMED),
        (b"\xef\xbb\xbf{}", Reason.MALFORMED),
    ],
)
def test_a_message_that_is_no_message_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Reason.BAD_HEADERS),
        ({"venue": "kraken"}, Reason.UNSUPPORTED_VENUE),
        ({"venue": "coinbase_exchange"}, Reason.BAD_HEADERS),
        ({"venue": "coinbase_exchange", "received_at": "now"}, Reason.BAD_HEADERS),
        (HEADERS | {"oversize": "1"}, Reason.OVERSIZE),
        (HEADERS | {"http_status": "teapot"}, Reason.BAD_HEADERS),
        (HEADERS | {"channel": "trades"}, Reason.BAD_HEADERS),  # a page must say its product
        (HEADERS | {"channel": "trades", "product_id": "BTC-DOGE"}, Reason.BAD_HEADERS),
    ],
)
def test_headers_decide_before_the_bytes_do(headers: dict[str, str], expected: Reason) -> None:
    outcome = venues.parse(headers, b"[]")
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is expected


def test_an_answer_that_is_not_200_is_ignored_by_its_status() -> None:
    assert venues.parse(HEADERS | {"http_status": "429"}, b"slow down") == Ignored("http_429")
    assert venues.parse({"venue": "unheard of", "http_status": "503"}, b"") == Ignored("http_503")


def test_a_page_of_trades_loses_no_trade_to_a_bad_neighbour() -> None:
    element = {"time": "2026-07-07T22:00:00Z", "price": "10.5", "size": "0.01", "side": "buy"}
    page = [element | {"trade_id": 75}, element | {"trade_id": 74, "size": "0"}, 7, element | {"trade_id": 73}]
    headers = HEADERS | {"channel": "trades", "product_id": "BTC-USD", "http_status": "200"}
    outcome = venues.parse(headers, json.dumps(page).encode())
    assert isinstance(outcome, Parsed)
    first, second, third, fourth = outcome.items
    assert first == Trade(
        venue="coinbase_exchange",
        product_id="BTC-USD",
        trade_id=75,
        price=Decimal("10.5"),
        size=Decimal("0.01"),
        notional=Decimal("0.105"),
        taker_side="sell",  # REST carries the maker's side too
        side_raw="buy",
        event_us=1_783_461_600_000_000,
        sequence=None,
    )
    assert isinstance(second, RejectedItem)
    assert isinstance(third, RejectedItem)
    assert (second.reason, third.reason) == (Reason.NOT_POSITIVE, Reason.UNEXPECTED_SHAPE)
    assert isinstance(fourth, Trade)
    assert venues.parse(headers, b"[]") == Ignored("empty_page")


def test_a_feed_subscribes_to_the_three_channels_of_its_products() -> None:
    assert [json.loads(message) for message in coinbase_exchange.subscribe(("BTC-USD", "ETH-USD"))] == [
        {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channels": ["matches", "ticker", "heartbeat"]}
    ]


def test_only_tickers_leave_the_trades_topic() -> None:
    assert coinbase_exchange.topic_of(json.dumps(TICKER_MESSAGE).encode()) is TICKER
    for value in (json.dumps(MATCH).encode(), b'{"type":"heartbeat"}', b'{"type":"new"}', b"\xff", b""):
        assert coinbase_exchange.topic_of(value) is TRADES


def test_a_glimpse_says_what_a_feed_must_know_and_never_raises() -> None:
    trade = coinbase_exchange.glimpse(json.dumps(MATCH).encode())
    assert (trade.is_trade, trade.trade_id, trade.canonical_product, trade.channel) == (
        True,
        280232,
        "SKL-BTC",
        "matches",
    )
    heartbeat = coinbase_exchange.glimpse(b'{"type":"heartbeat","last_trade_id":20,"product_id":"BTC-USD"}')
    assert (heartbeat.is_trade, heartbeat.last_trade_id, heartbeat.channel) == (False, 20, "heartbeat")
    assert coinbase_exchange.glimpse(b'{"type":"match","trade_id":99999999999999999999}').is_trade is False
    assert coinbase_exchange.glimpse(b"[" * 100_000).channel == "undecodable"
