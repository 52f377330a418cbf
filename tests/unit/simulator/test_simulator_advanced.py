"""The Advanced Trade feed: what it tells equals the market, and each connection can count what it was sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from marketflow import venues
from marketflow.contracts.records import Parsed, Quote
from marketflow.contracts.records import Trade as ParsedTrade
from marketflow.simulator import advanced_wire
from marketflow.simulator.advanced_socket import AdvancedDialect, AdvancedSession
from marketflow.simulator.faults import ADVANCED, FEED_FAULTS, FaultBox, FaultKind, FaultRequest
from marketflow.simulator.feed_faults import FeedFaults
from marketflow.simulator.feed_messages import Batch, WireMessage
from marketflow.simulator.listings import listing
from marketflow.simulator.market import Event, Market, ProductMarket, Trade
from marketflow.venues.feeds import PROTOCOLS

START_US = 1_785_542_400_000_000
SECOND = 1_000_000
PRODUCTS = ("BTC-USD", "BAND-GBP")
TICKER_FIELDS = [
    "type",
    "product_id",
    "price",
    "volume_24_h",
    "low_24_h",
    "high_24_h",
    "low_52_w",
    "high_52_w",
    "price_percent_chg_24_h",
    "best_bid",
    "best_bid_quantity",
    "best_ask",
    "best_ask_quantity",
]


def ticks(count: int = 20) -> list[list[Event]]:
    market = Market({product: ProductMarket(listing(product), seed=1, rate=50) for product in PRODUCTS})
    market.start(START_US)
    return [market.step(START_US + tick * 100_000) for tick in range(1, count + 1)]


def trades_of(events: Sequence[Event]) -> list[Trade]:
    return [event for event in events if isinstance(event, Trade)]


def items(payload: bytes) -> tuple[Any, ...]:
    outcome = venues.parse({"venue": ADVANCED, "received_at": str(START_US + 60 * SECOND)}, payload)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def exact(units: int, decimals: int) -> Decimal:
    return Decimal(units) / Decimal(10) ** decimals


def assert_tells(told: Sequence[ParsedTrade], trades: Sequence[Trade]) -> None:
    """One by one against the market's own integers."""
    assert len(told) == len(trades)
    for item, trade in zip(told, trades, strict=True):
        assert item.product_id == trade.listing.product_id
        assert item.trade_id == trade.trade_id
        assert item.price == exact(trade.price, trade.listing.price_decimals)
        assert item.size == exact(trade.size, 8)
        assert item.event_us == trade.event_us
        assert item.taker_side == trade.taker_side


def test_a_tick_has_one_message_of_trades_a_product_newest_first() -> None:
    for events in ticks():
        messages = [m for m in advanced_wire.messages(events, 0) if m.channel == "market_trades"]
        assert len(messages) == len({trade.listing.product_id for trade in trades_of(events)})
        for message in messages:
            own = [trade for trade in trades_of(events) if trade.listing.product_id == message.product_id]
            assert_tells(items(message.payload), own[::-1])
            assert message.trade_ids == tuple(trade.trade_id for trade in own)


def test_a_ticker_is_the_book_after_the_last_order_of_its_tick_at_the_envelopes_time() -> None:
    seen = 0
    for events in ticks():
        for message in advanced_wire.messages(events, 0):
            if message.channel != "ticker":
                continue
            own = [t for t in trades_of(events) if t.listing.product_id == message.product_id and t.ends_order]
            last, decimals = own[-1], own[-1].listing.price_decimals
            [quote] = items(message.payload)
            assert isinstance(quote, Quote)
            assert (quote.best_bid, quote.best_ask) == (
                exact(last.quotes.bid, decimals),
                exact(last.quotes.ask, decimals),
            )
            assert quote.best_bid_size == exact(last.quotes.bid_size, 8)
            assert quote.best_ask_size == exact(last.quotes.ask_size, 8)
            assert quote.last_price == exact(last.price, decimals)
            assert (quote.high_24h, quote.low_24h) == (exact(last.day.high, decimals), exact(last.day.low, decimals))
            assert quote.volume_24h == exact(last.day.volume, 8)
            assert quote.event_us == last.event_us
            [ticker] = json.loads(message.payload)["events"][0]["tickers"]
            assert list(ticker) == TICKER_FIELDS
            assert {type(value) for value in ticker.values()} == {str}
            assert Decimal(ticker["low_52_w"]) < Decimal(ticker["low_24_h"]) < Decimal(ticker["high_52_w"])
            seen += 1
    assert seen > 20


def test_messages_have_the_fixtures_fields_in_their_order() -> None:
    [message] = [m for m in advanced_wire.messages(ticks()[0], 0) if m.stream == ("market_trades", "BTC-USD")]
    envelope = json.loads(advanced_wire.numbered(message.payload, 1851))
    assert list(envelope) == ["channel", "client_id", "timestamp", "sequence_num", "events"]
    assert (envelope["client_id"], envelope["sequence_num"]) == ("", 1851)
    assert envelope["timestamp"].endswith("000Z")
    assert len(envelope["timestamp"]) == len("2025-12-31T06:00:12.516946132Z")
    [event] = envelope["events"]
    assert list(event) == ["type", "trades"]
    for trade in event["trades"]:
        assert list(trade) == ["product_id", "trade_id", "price", "size", "time", "side"]
        assert {type(value) for value in trade.values()} == {str}
        assert trade["side"] in ("BUY", "SELL")


def test_a_beat_comes_once_a_second_of_no_product() -> None:
    beats = [m for tick, events in enumerate(ticks(35)) for m in advanced_wire.messages(events, 100 + tick // 10)]
    told = [json.loads(m.payload)["events"][0] for m in beats if m.channel == "heartbeats"]
    assert told == [
        {"current_time": f"2026-08-01 00:00:0{second}.000000000+00:00", "heartbeat_counter": counter}
        for second, counter in ((1, 100), (2, 101), (3, 102))
    ]
    assert {m.product_id for m in beats if m.channel == "heartbeats"} == {""}


class Reader:
    """A connection, as far as the dialect knows it, and the payloads that it was sent."""

    def __init__(self, dialect: AdvancedDialect, *subscriptions: tuple[str, list[str]]) -> None:
        self.dialect = dialect
        session = dialect.session("/coinbase_advanced", {})
        assert session is not None
        self.session: AdvancedSession = session
        self.messages: list[dict[str, Any]] = []
        for channel, products in subscriptions:
            self.ask({"type": "subscribe", "channel": channel, "product_ids": products})

    def ask(self, request: object) -> None:
        self.messages += map(json.loads, self.dialect.answer(self.session, json.dumps(request), START_US))

    def hear(self, wire: Sequence[WireMessage]) -> None:
        frames, count = self.dialect.frames(self.session, Batch(wire))
        heard = 0
        while frames:
            length, header = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4], "big"), 4)
            self.messages.append(json.loads(frames[header : header + length]))
            frames, heard = frames[header + length :], heard + 1
        assert heard == count

    @property
    def numbers(self) -> list[int]:
        return [message["sequence_num"] for message in self.messages]

    def ids(self, product: str = "BTC-USD") -> list[int]:
        return [
            int(trade["trade_id"])
            for message in self.messages
            if message["channel"] == "market_trades"
            for event in message["events"]
            for trade in reversed(event["trades"])
            if trade["product_id"] == product
        ]


def dialect(recent: Sequence[Trade] = ()) -> AdvancedDialect:
    return AdvancedDialect(
        PRODUCTS, lambda product, limit: [t for t in recent if t.listing.product_id == product][-limit:]
    )


EVERYTHING = (("market_trades", list(PRODUCTS)), ("ticker", list(PRODUCTS)), ("heartbeats", []))


def test_each_connection_counts_its_own_messages_over_all_its_channels() -> None:
    venue = dialect()
    readers = [Reader(venue, *EVERYTHING), Reader(venue, ("market_trades", ["BAND-GBP"]))]
    for tick, events in enumerate(ticks()):
        if tick == 10:
            readers.append(Reader(venue, ("ticker", ["BTC-USD"]), ("heartbeats", ["BTC-USD"])))
        wire = venue.messages(events)
        for reader in readers:
            reader.hear(wire)
    for reader in readers:
        assert reader.numbers == list(range(len(reader.messages)))
    assert [len(set(map(str, reader.messages))) for reader in readers] == [len(reader.messages) for reader in readers]
    assert {message["channel"] for message in readers[1].messages} == {"subscriptions", "market_trades"}
    assert {message["channel"] for message in readers[2].messages} == {"subscriptions", "ticker", "heartbeats"}


def test_what_the_platforms_own_feed_asks_for_it_gets() -> None:
    reader = Reader(dialect())
    for message in PROTOCOLS[ADVANCED].subscribe(PRODUCTS):
        reader.ask(json.loads(message))
    assert {message["channel"] for message in reader.messages} == {"subscriptions"}
    streams = {m.stream for events in ticks() for m in advanced_wire.messages(events, 0)}
    assert reader.session.wanted == streams
    assert len(streams) == 5


def with_fault(kind: FaultKind) -> Reader:
    """One who hears the trades of one product in twenty ticks, the fifth with the fault."""
    venue, box = dialect(), FaultBox({}, 1)
    faults = FeedFaults(ADVANCED, box, FEED_FAULTS)
    reader = Reader(venue, ("market_trades", ["BTC-USD"]))
    for tick, events in enumerate(ticks()):
        if tick == 5:
            box.add(FaultRequest(fault=kind, product="BTC-USD"), 0)
        reader.hear(faults.apply(venue.messages(events), START_US + tick * 100_000))
    assert box.done == {f"{ADVANCED}:{kind}": 1}
    return reader


def test_a_lost_message_shows_as_a_jump_and_a_late_one_keeps_its_number() -> None:
    whole = with_fault(FaultKind.CONFLICTING_DUPLICATE)
    assert whole.numbers == list(range(len(whole.messages))), "a copy beside has a number of its own"
    for kind in (FaultKind.DROP, FaultKind.VANISH):
        reader = with_fault(kind)
        steps = [later - earlier for earlier, later in zip(reader.numbers, reader.numbers[1:], strict=False)]
        assert sorted(steps)[-2:] == [1, 2]
        ids = reader.ids()
        missing = set(range(ids[0], ids[-1] + 1)) - set(ids)
        place = steps.index(2)
        assert missing == set(range(max(ids_of(reader, place)) + 1, min(ids_of(reader, place + 1))))
    swapped = with_fault(FaultKind.REORDER)
    assert sorted(swapped.numbers) == list(range(len(swapped.messages)))
    assert [n for n, place in zip(swapped.numbers, range(len(swapped.numbers)), strict=True) if n != place] != []
    assert sorted(swapped.ids()) != swapped.ids()
    by_number = sorted(swapped.messages, key=lambda message: int(message["sequence_num"]))
    swapped.messages = by_number
    assert swapped.ids() == sorted(swapped.ids()), "in the order of the numbers nothing is amiss"
    twice = with_fault(FaultKind.DUPLICATE)
    [again] = [place for place in range(1, len(twice.messages)) if twice.messages[place] == twice.messages[place - 1]]
    assert twice.numbers == [*range(again), *range(again - 1, len(twice.messages) - 1)]


def ids_of(reader: Reader, place: int) -> list[int]:
    return [int(trade["trade_id"]) for event in reader.messages[place]["events"] for trade in event["trades"]]


def test_a_message_that_was_held_before_a_connection_came_is_not_for_it() -> None:
    venue, box = dialect(), FaultBox({}, 1)
    faults = FeedFaults(ADVANCED, box, FEED_FAULTS)
    first, second, *_ = ticks()
    box.add(FaultRequest(fault=FaultKind.LATE, product="BTC-USD"), 0)
    early = Reader(venue, ("market_trades", ["BTC-USD"]))
    early.hear(faults.apply(venue.messages(first), START_US))
    late = Reader(venue, ("market_trades", ["BTC-USD"]))
    wire = faults.apply(venue.messages(second), START_US + 4 * SECOND)
    for reader in (early, late):
        reader.hear(wire)
    assert early.numbers == [0, 1, 2]
    assert late.numbers == [0, 1]
    own = [t.trade_id for t in trades_of([*first, *second]) if t.listing.product_id == "BTC-USD"]
    assert early.ids() == own
    assert late.ids() == own[-len(late.ids()) :]


def test_a_new_subscriber_is_told_the_last_fifty_trades_and_the_last_ticker_as_snapshots() -> None:
    before = [event for events in ticks() for event in events]
    told_before = trades_of(before)
    venue = dialect(told_before)
    venue.remember(told_before)
    reader = Reader(venue, *EVERYTHING)
    kinds = [(m["channel"], m["events"][0].get("type"), m["sequence_num"]) for m in reader.messages]
    assert kinds == [
        ("subscriptions", None, 0),
        ("market_trades", "snapshot", 1),
        ("market_trades", "snapshot", 2),
        ("subscriptions", None, 3),
        ("ticker", "snapshot", 4),
        ("ticker", "snapshot", 5),
        ("subscriptions", None, 6),
    ]
    bitcoin = [trade for trade in told_before if trade.listing.product_id == "BTC-USD"]
    assert len(bitcoin) > 50
    assert_tells(items(json.dumps(reader.messages[1]).encode()), bitcoin[:-51:-1])
    assert reader.messages[-1]["events"] == [
        {
            "subscriptions": {
                "market_trades": list(PRODUCTS),
                "ticker": list(PRODUCTS),
                "heartbeats": ["heartbeats"],
            }
        }
    ]
    reader.ask({"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]})
    assert len(reader.messages) == 8, "what is subscribed already is not told again"
    reader.ask({"type": "unsubscribe", "channel": "ticker", "product_ids": ["BTC-USD", "BTC-USD"]})
    assert reader.messages[-1]["events"][0]["subscriptions"]["ticker"] == ["BAND-GBP"]
    assert reader.numbers == list(range(9))


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"type": "sing"}, "unknown type sing"),
        ({"type": "subscribe", "channel": "matches", "product_ids": ["BTC-USD"]}, "channel matches is not supported"),
        ({"type": "subscribe", "channel": "ticker"}, "channel ticker wants product_ids"),
        ({"type": "subscribe", "channel": "ticker", "product_ids": ["BTC-USDT"]}, "unknown product BTC-USDT"),
    ],
)
def test_a_wrong_request_is_answered_with_an_error_that_has_no_number(request_: object, text: str) -> None:
    venue = dialect()
    session = venue.session("/coinbase_advanced", {})
    assert session is not None
    assert [json.loads(m) for m in venue.answer(session, json.dumps(request_), START_US)] == [
        {"type": "error", "message": text}
    ]
    assert session.wanted == frozenset()
    assert session.number() == 0
