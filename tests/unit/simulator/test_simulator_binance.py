"""Binance's streams: what they tell equals the market, in the captures' shape, in each form that a client asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from marketflow import venues
from marketflow.contracts.records import Parsed, Quote
from marketflow.contracts.records import Trade as ParsedTrade
from marketflow.simulator import binance_wire
from marketflow.simulator.bad_feed_messages import bad_copy
from marketflow.simulator.binance_socket import BinanceDialect
from marketflow.simulator.faults import BINANCE, FaultKind
from marketflow.simulator.feed_messages import Batch, WireMessage
from marketflow.simulator.listings import listing
from marketflow.simulator.market import Event, Market, ProductMarket, Trade
from marketflow.venues.feeds import PROTOCOLS

START_US = 1_785_542_400_000_000
PRODUCTS = ("BTC-USDT", "DOGE-USDT")
CAPTURE = Path(__file__).parents[2] / "fixtures/captures/binance/ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson"
BOOK = ["u", "s", "b", "B", "a", "A"]


def events() -> list[Event]:
    market = Market({product: ProductMarket(listing(product), seed=1, rate=50) for product in PRODUCTS})
    market.start(START_US)
    return market.step(START_US + 2_000_000)


def parsed(payload: bytes) -> Any:
    outcome = venues.parse({"venue": BINANCE, "received_at": str(START_US + 3_000_000)}, payload)
    assert isinstance(outcome, Parsed), outcome
    [item] = outcome.items
    return item


def exact(units: int, decimals: int) -> Decimal:
    return Decimal(units) / Decimal(10) ** decimals


def assert_is(item: ParsedTrade, trade: Trade) -> None:
    assert item.product_id == trade.listing.product_id
    assert item.trade_id == trade.trade_id
    assert item.price == exact(trade.price, trade.listing.price_decimals)
    assert item.size == exact(trade.size, 8)
    assert item.event_us == trade.event_us
    assert item.taker_side == trade.taker_side


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("microseconds", [False, True])
def test_every_trade_and_the_book_after_every_order_equal_the_market(combined: bool, microseconds: bool) -> None:
    made = [event for event in events() if isinstance(event, Trade)]
    told = [
        parsed(binance_wire.in_form(message, combined=combined, microseconds=microseconds))
        for message in binance_wire.messages(events())
    ]
    trades = [item for item in told if isinstance(item, ParsedTrade)]
    assert len(trades) == len(made) > 100
    for item, trade in zip(trades, made, strict=True):
        assert_is(item, trade)
    books = [item for item in told if isinstance(item, Quote)]
    orders = [trade for trade in made if trade.ends_order]
    assert len(books) == len(orders)
    for book, trade in zip(books, orders, strict=True):
        decimals = trade.listing.price_decimals
        assert (book.product_id, book.sequence) == (trade.listing.product_id, trade.sequence)
        assert (book.best_bid, book.best_ask) == (exact(trade.quotes.bid, decimals), exact(trade.quotes.ask, decimals))
        assert (book.best_bid_size, book.best_ask_size) == (
            exact(trade.quotes.bid_size, 8),
            exact(trade.quotes.ask_size, 8),
        )


def test_a_trade_has_the_captured_keys_types_and_digits_and_a_book_has_the_documented_ones() -> None:
    captured = json.loads(CAPTURE.read_text().splitlines()[0])
    message = next(m for m in binance_wire.messages(events()) if m.stream == ("trade", "BTC-USDT"))
    told = json.loads(binance_wire.in_form(message, combined=True, microseconds=False))
    assert list(told) == list(captured)
    assert told["stream"] == captured["stream"]
    assert list(told["data"]) == list(captured["data"])
    assert [type(value) for value in told["data"].values()] == [type(value) for value in captured["data"].values()]
    assert [len(told["data"][name].split(".")[1]) for name in ("p", "q")] == [8, 8]
    assert [len(str(told["data"][name])) for name in ("E", "T")] == [13, 13]
    fine = json.loads(binance_wire.in_form(message, combined=False, microseconds=True))
    assert [fine[name] for name in ("E", "T")] == [told["data"][name] * 1000 for name in ("E", "T")]
    assert {k: v for k, v in fine.items() if k not in "ET"} == {k: v for k, v in told["data"].items() if k not in "ET"}
    book = next(m for m in binance_wire.messages(events()) if m.channel == "bookTicker")
    assert list(json.loads(book.payload)) == BOOK


def test_a_combined_message_that_is_cut_has_no_end_and_an_error_has_no_envelope() -> None:
    good = next(m for m in binance_wire.messages(events()) if m.channel == "trade")
    whole = binance_wire.in_form(good, combined=True, microseconds=False)
    cut = binance_wire.in_form(bad_copy(BINANCE, FaultKind.TRUNCATED, good), combined=True, microseconds=False)
    assert cut == whole[: len(whole) // 2]
    error = json.loads(
        binance_wire.in_form(bad_copy(BINANCE, FaultKind.ERROR_OBJECT, good), combined=True, microseconds=False)
    )
    assert list(error) == ["error", "id"]


def heard(path: str, query: dict[str, str], requests: Sequence[object] = ()) -> tuple[list[Any], list[Any]]:
    """What a connection is answered, and what it hears of a batch."""
    venue = BinanceDialect(PRODUCTS)
    session = venue.session(path, query)
    assert session is not None
    answers = [json.loads(a) for request in requests for a in venue.answer(session, json.dumps(request), START_US)]
    frames, count = venue.frames(session, Batch(venue.messages(events())))
    told = []
    while frames:
        length, header = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4], "big"), 4)
        told.append(json.loads(frames[header : header + length]))
        frames = frames[header + length :]
    assert len(told) == count
    return answers, told


def payloads(*streams: tuple[str, str]) -> list[Any]:
    def wanted(message: WireMessage) -> bool:
        return message.stream in streams

    return [json.loads(message.payload) for message in filter(wanted, binance_wire.messages(events()))]


def test_streams_are_chosen_by_the_path_and_by_method_messages() -> None:
    assert heard("/binance/ws", {}) == ([], [])
    assert heard("/binance/ws/btcusdt@trade", {})[1] == payloads(("trade", "BTC-USDT"))
    both = {"streams": "btcusdt@trade/dogeusdt@bookTicker"}
    told = heard("/binance/stream", both)[1]
    assert {message["stream"] for message in told} == {"btcusdt@trade", "dogeusdt@bookTicker"}
    assert [m["data"] for m in told] == payloads(("trade", "BTC-USDT"), ("bookTicker", "DOGE-USDT"))
    answers, told = heard(
        "/binance/ws/btcusdt@trade",
        {},
        [
            {"method": "SUBSCRIBE", "params": ["dogeusdt@trade", "btcusdt@trade"], "id": 1},
            {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "two"},
            {"method": "LIST_SUBSCRIPTIONS", "id": 3},
        ],
    )
    assert answers == [
        {"result": None, "id": 1},
        {"result": None, "id": "two"},
        {"result": ["dogeusdt@trade"], "id": 3},
    ]
    assert told == payloads(("trade", "DOGE-USDT"))


def test_what_the_platforms_own_feed_asks_for_it_gets() -> None:
    protocol = PROTOCOLS[BINANCE]
    requests = [json.loads(message) for message in protocol.subscribe(PRODUCTS)]
    answers, told = heard(f"/binance{protocol.path}", {}, requests)
    assert [answer["result"] for answer in answers] == [None] * len(requests)
    assert [message["data"] for message in told] == [json.loads(m.payload) for m in binance_wire.messages(events())]
    assert len({message["stream"] for message in told}) == 4


def test_a_stream_that_does_not_exist_brings_nothing_and_a_wrong_request_an_error() -> None:
    for name in ("BTCUSDT@trade", "btcusd@trade", "btcusdt@kline_1m", "nonsense"):
        assert heard(f"/binance/ws/{name}", {}) == ([], [])
    answers, told = heard("/binance/ws", {}, [{"method": "SUBSCRIBE", "params": ["btcusd@trade"], "id": 9}])
    assert (answers, told) == ([{"result": None, "id": 9}], [])
    [sung, mumbled] = heard("/binance/ws", {}, [{"method": "SING", "id": 4}, ["mumble"]])[0]
    assert (sung["error"]["code"], sung["id"]) == (2, 4)
    assert "unknown variant `SING`" in sung["error"]["msg"]
    assert (mumbled["error"]["code"], mumbled["id"]) == (3, None)


@pytest.mark.parametrize("path", ["/binance", "/binance/w", "/binance/wsbtcusdt@trade", "/coinbase_exchange", "/"])
def test_another_path_is_none_of_its(path: str) -> None:
    assert BinanceDialect(PRODUCTS).session(path, {}) is None
