"""Binance's streams: trades and books, exact, with the taker's side and the time in either unit."""

from __future__ import annotations

import json
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Item, Parsed, Quote, RejectedItem, Side, Trade, Unparseable
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.venues import binance

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures" / "binance"
STREAM = (CAPTURES / "ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson").read_bytes().splitlines()
RECEIVED = 1_783_465_200_000_000  # 2026-07-07T23:00:00Z
HEADERS = {"venue": "binance", "channel": "trade", "received_at": str(RECEIVED)}
PRODUCTS = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}

TRADE = json.loads(
    '{"e":"trade","E":1783465157897,"s":"BTCUSDT","t":12345,"p":"0.001","q":"100","T":1783465157897,"m":true,"M":true}'
)
BOOK = {"u": 400900217, "s": "BTCUSDT", "b": "25.35190000", "B": "31.21000000", "a": "25.36520000", "A": "40.66000000"}
ABSENT = object()


def changed(message: dict[str, object], change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in (message | change).items() if value is not ABSENT}


def items(headers: dict[str, str], message: object) -> tuple[Item, ...]:
    outcome = venues.parse(headers, message if isinstance(message, bytes) else json.dumps(message).encode())
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def only(message: dict[str, object]) -> Item:
    """The one item of a message, which a combined stream's envelope does not change."""
    (bare,) = items(HEADERS, message)
    assert items(HEADERS, {"stream": "btcusdt@trade", "data": message}) == (bare,)
    return bare


@pytest.mark.parametrize(
    ("buyer_is_maker", "taker_side", "side_raw"),
    [(True, "sell", "buyer is maker"), (False, "buy", "seller is maker")],
)
def test_a_trade_is_exact_and_its_taker_is_the_one_who_did_not_make(
    buyer_is_maker: bool, taker_side: Side, side_raw: str
) -> None:
    assert only(TRADE | {"m": buyer_is_maker}) == Trade(
        venue="binance",
        product_id="BTC-USDT",
        trade_id=12345,
        price=Decimal("0.001"),
        size=Decimal(100),
        notional=Decimal("0.1"),
        taker_side=taker_side,
        side_raw=side_raw,
        event_us=1_783_465_157_897_000,
        sequence=None,
    )


def test_every_message_of_the_capture_is_an_exact_trade_or_ignored_by_name() -> None:
    outcomes = [venues.parse(HEADERS, line) for line in STREAM]
    ignored = [outcome.name for outcome in outcomes if isinstance(outcome, Ignored)]
    trades = [item for outcome in outcomes if isinstance(outcome, Parsed) for item in outcome.items]
    assert ignored == ["unknown:depthUpdate"] * 900
    expected = [message for line in STREAM if (message := json.loads(line)["data"])["e"] == "trade"]
    assert len(trades) == len(expected) == 1163
    next_ids: dict[str, int] = {}
    for trade, message in zip(trades, expected, strict=True):
        with localcontext(prec=60):
            product = Decimal(message["p"]) * Decimal(message["q"])
        assert trade == Trade(
            venue="binance",
            product_id=PRODUCTS[message["s"]],
            trade_id=message["t"],
            price=Decimal(message["p"]),
            size=Decimal(message["q"]),
            notional=product,
            taker_side="sell" if message["m"] else "buy",
            side_raw="buyer is maker" if message["m"] else "seller is maker",
            event_us=message["T"] * 1000,
            sequence=None,
        )
        assert isinstance(trade, Trade)
        assert next_ids.get(trade.product_id, trade.trade_id) == trade.trade_id  # no id is skipped
        next_ids[trade.product_id] = trade.trade_id + 1
    assert set(next_ids) == {"BTC-USDT", "ETH-USDT"}


def test_a_connection_in_microseconds_gives_the_same_trades() -> None:
    for line in STREAM[:400]:
        message = json.loads(line)
        if message["data"]["e"] == "trade":
            finer = {name: message["data"][name] * 1000 for name in ("E", "T")}
            assert items(HEADERS, message["data"] | finer) == items(HEADERS, line)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p": "0.00000000"}, Reason.NOT_POSITIVE),
        ({"q": "-0.5"}, Reason.NOT_POSITIVE),
        ({"p": None}, Reason.MISSING_FIELD),
        ({"p": ""}, Reason.MISSING_FIELD),
        ({"q": ABSENT}, Reason.MISSING_FIELD),
        ({"p": "NaN"}, Reason.WRONG_TYPE),
        ({"p": "1_000"}, Reason.WRONG_TYPE),
        ({"p": " 1"}, Reason.WRONG_TYPE),
        ({"p": "1\n"}, Reason.WRONG_TYPE),
        ({"p": "١٢"}, Reason.WRONG_TYPE),  # digits to Decimal(), not to us
        ({"p": True}, Reason.WRONG_TYPE),
        ({"q": ["1"]}, Reason.WRONG_TYPE),
        ({"p": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),  # 19 fraction digits
        ({"q": "1" + "0" * 20}, Reason.OUT_OF_RANGE),  # 21 integer digits
        ({"p": "9" * 20, "q": "9" * 20}, Reason.OUT_OF_RANGE),  # each fits, their product does not
        ({"t": 2**63}, Reason.OUT_OF_RANGE),
        ({"t": -1}, Reason.OUT_OF_RANGE),
        ({"t": "12345"}, Reason.WRONG_TYPE),
        ({"t": 1.5}, Reason.WRONG_TYPE),
        ({"s": "BTCUSDX"}, Reason.UNKNOWN_PRODUCT),
        ({"s": "btcusdt"}, Reason.UNKNOWN_PRODUCT),  # lower case names a stream, never a symbol
        ({"s": 7}, Reason.WRONG_TYPE),
        ({"m": None}, Reason.MISSING_FIELD),
        ({"m": ABSENT}, Reason.MISSING_FIELD),
        ({"m": "true"}, Reason.WRONG_TYPE),
        ({"m": 1}, Reason.WRONG_TYPE),
        ({"T": 0}, Reason.TIME_BEFORE_2009),
        ({"T": 1_230_767_999_999}, Reason.TIME_BEFORE_2009),  # the last millisecond of 2008
        ({"T": 1_230_767_999_999_999}, Reason.TIME_BEFORE_2009),  # its last microsecond
        ({"T": 1_783_465_260_001}, Reason.TIME_IN_FUTURE),  # one millisecond beyond a minute
        ({"T": 1_783_465_260_000_001}, Reason.TIME_IN_FUTURE),  # one microsecond
        ({"T": 10**14 - 1}, Reason.TIME_IN_FUTURE),  # the last number that is milliseconds
        ({"T": 10**14}, Reason.TIME_BEFORE_2009),  # the first that is microseconds
        ({"T": None}, Reason.MISSING_FIELD),
        ({"T": -1}, Reason.BAD_TIME),
        ({"T": "1783465157897"}, Reason.BAD_TIME),
        ({"T": 1783465157897.5}, Reason.BAD_TIME),
    ],
)
def test_a_bad_trade_is_refused_by_name(change: dict[str, object], reason: Reason) -> None:
    item = only(changed(TRADE, change))
    assert isinstance(item, RejectedItem)
    assert item.reason is reason
    assert item.detail.startswith((next(iter(change)), "notional"))


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"p": "9" * 20 + "." + "9" * 18, "q": "0.1"}, "price", Decimal("9" * 20 + "." + "9" * 18)),
        ({"q": "0.000000000000000001"}, "size", Decimal("0.000000000000000001")),
        ({"p": "1." + "0" * 30}, "price", Decimal(1)),  # trailing zeros are no digits
        ({"p": "1e-8"}, "price", Decimal("0.00000001")),
        ({"p": 0.1}, "price", Decimal("0.1")),  # a JSON number is read from its text
        ({"t": 0}, "trade_id", 0),
        ({"t": 2**63 - 1}, "trade_id", 2**63 - 1),
        ({"T": 1_783_465_260_000}, "event_us", RECEIVED + 60_000_000),
        ({"T": 1_783_465_157_897_123}, "event_us", 1_783_465_157_897_123),
        ({"T": 1_230_768_000_000}, "event_us", 1_230_768_000_000_000),
        ({"E": None, "M": "x", "new": {"a": []}}, "trade_id", 12345),  # what is not kept is not judged
    ],
)
def test_the_edge_of_every_limit_is_accepted_exactly(change: dict[str, object], field: str, expected: object) -> None:
    assert getattr(only(TRADE | change), field) == expected


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
    item = only(TRADE | {"p": price, "q": size})
    assert isinstance(item, Trade)
    assert item.notional == Decimal(expected)


def test_a_book_is_a_quote_at_its_receipt() -> None:
    assert only(BOOK) == Quote(
        venue="binance",
        product_id="BTC-USDT",
        sequence=400900217,
        event_us=RECEIVED,
        best_bid=Decimal("25.3519"),
        best_bid_size=Decimal("31.21"),
        best_ask=Decimal("25.3652"),
        best_ask_size=Decimal("40.66"),
        last_price=None,
        last_trade_id=None,
        open_24h=None,
        high_24h=None,
        low_24h=None,
        volume_24h=None,
    )
    locked = only(BOOK | {"b": "25.36520000"})
    assert isinstance(locked, Quote)  # a bid at the ask crosses nothing


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"b": "25.36520001"}, Reason.CROSSED_QUOTE),
        ({"b": "0.00000000"}, Reason.NOT_POSITIVE),  # an empty side of the book
        ({"a": "-1"}, Reason.NOT_POSITIVE),
        ({"b": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),
        ({"B": "-1"}, Reason.OUT_OF_RANGE),
        ({"A": "1" * 21}, Reason.OUT_OF_RANGE),
        ({"A": "many"}, Reason.WRONG_TYPE),
        ({"u": 2**63}, Reason.OUT_OF_RANGE),
        ({"u": "1"}, Reason.WRONG_TYPE),
        ({"s": "BNBUSDT"}, Reason.UNKNOWN_PRODUCT),
    ],
)
def test_a_bad_book_is_refused_by_name(change: dict[str, object], reason: Reason) -> None:
    item = only(BOOK | change)
    assert isinstance(item, RejectedItem)
    assert item.reason is reason


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (
            {"e": "depthUpdate", "E": 1783465157917, "s": "BTCUSDT", "U": 1, "u": 2, "b": [], "a": []},
            "unknown:depthUpdate",
        ),
        ({"e": "aggTrade", "s": "BTCUSDT", "a": 1, "p": "1", "q": "1", "T": 1, "m": True}, "unknown:aggTrade"),
        ({"e": "24hrTicker", "s": "BTCUSDT", "b": "1", "B": "1", "a": "2", "A": "1"}, "unknown:24hrTicker"),
        ({"e": "serverShutdown", "E": 1783465157897}, "unknown:serverShutdown"),
        ({"e": "a\u0001b"}, "unknown:a?b"),  # a name is shown to people
        ({"e": "x" * 99}, "unknown:" + "x" * 40),
        ({"result": None, "id": 1}, "subscriptions"),
        ({"error": {"code": 2, "msg": "Invalid request"}, "id": None}, "venue_error"),
        ({"code": 3, "msg": "Invalid JSON"}, "venue_error"),
    ],
)
def test_a_message_without_data_is_ignored_by_name(message: dict[str, object], name: str) -> None:
    assert venues.parse(HEADERS, json.dumps(message).encode()) == Ignored(name)
    assert venues.parse(HEADERS, json.dumps({"stream": "s", "data": message}).encode()) == Ignored(name)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"null", Reason.UNEXPECTED_SHAPE),
        (b"[]", Reason.UNEXPECTED_SHAPE),
        (b"[[[[", Reason.MALFORMED),
        (b"{}", Reason.UNEXPECTED_SHAPE),
        (b'{"e":7}', Reason.WRONG_TYPE),
        (b'{"e":"trade"', Reason.MALFORMED),
        (b'{"e":"kline"}{}', Reason.MALFORMED),
        (b'{"e":"kline","s":"\xff"}', Reason.MALFORMED),  # not UTF-8 where nobody looks
        (b'{"stream":"btcusdt@trade","data":null}', Reason.UNEXPECTED_SHAPE),
        (b'{"stream":"!miniTicker@arr","data":[]}', Reason.UNEXPECTED_SHAPE),
        (b'{"stream":"btcusdt@trade","data":{}}', Reason.UNEXPECTED_SHAPE),
        (b'{"u":1,"s":"BTCUSDT","b":null,"B":"1","a":"2","A":"1"}', Reason.UNEXPECTED_SHAPE),  # no whole book
        pytest.param(b'{"a":' * 100_000, Reason.MALFORMED, id="deep"),
    ],
)
def test_a_message_that_is_no_message_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


@pytest.mark.parametrize("around", ["{}", '{{"stream":"btcusdt@trade","data":{}}}'], ids=["bare", "enveloped"])
def test_a_message_that_does_not_say_it_is_a_trade_is_none(around: str) -> None:
    outcome = venues.parse(HEADERS, around.format(json.dumps(changed(TRADE, {"e": ABSENT}))).encode())
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.UNEXPECTED_SHAPE


def test_only_books_leave_the_trades_topic() -> None:
    for book in (BOOK, {"stream": "btcusdt@bookTicker", "data": BOOK}):
        assert binance.topic_of(json.dumps(book).encode()) is TICKER
    others = (json.dumps(BOOK | {"e": "24hrTicker"}).encode(), b'{"result":null,"id":1}', b"\xff", b"", b"[" * 9999)
    for value in (*STREAM[:50], *others):
        assert binance.topic_of(value) is TRADES


def test_a_feed_subscribes_to_trades_and_books_in_lower_case() -> None:
    streams = ["btcusdt@trade", "ethusdt@trade", "btcusdt@bookTicker", "ethusdt@bookTicker"]
    assert binance.stream_names(("BTC-USDT", "ETH-USDT")) == streams
    assert [json.loads(message) for message in binance.subscribe(("BTC-USDT", "ETH-USDT"))] == [
        {"method": "SUBSCRIBE", "params": streams, "id": 1}
    ]
