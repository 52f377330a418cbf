"""What the wire carries of a batch, batch by batch, and what becomes of each spoilt message behind it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Outcome, Parsed, Quote, RejectedItem, Trade, Unparseable
from marketflow.simulator import advanced_wire, binance_wire, coinbase_wire
from marketflow.simulator.faults import (
    FEED_FAULTS,
    PAGE_ONLY_FAULTS,
    FaultBox,
    FaultKind,
    FaultRequest,
    impossible,
    refusal,
)
from marketflow.simulator.feed_faults import FeedFaults
from marketflow.simulator.feed_messages import Fate, WireMessage
from marketflow.simulator.listings import listing
from marketflow.simulator.market import Event, Market, ProductMarket

START_US = 1_785_542_400_000_000
EXCHANGE, ADVANCED, BINANCE = "coinbase_exchange", "coinbase_advanced", "binance"
SECOND = 1_000_000


def match(product_id: str, trade_id: int) -> WireMessage:
    payload = json.dumps({"type": "match", "product_id": product_id, "trade_id": trade_id}).encode()
    return WireMessage("matches", product_id, payload, (trade_id,))


def leaving(messages: Sequence[WireMessage]) -> list[bytes]:
    return [message.payload for message in messages if message.leaves]


def ids(messages: Sequence[WireMessage]) -> list[int]:
    return [json.loads(payload)["trade_id"] for payload in leaving(messages)]


def ordered(*requests: FaultRequest) -> tuple[FaultBox, FeedFaults]:
    box = FaultBox({}, 1)
    for request in requests:
        box.add(request, 0)
    return box, FeedFaults(EXCHANGE, box, FEED_FAULTS)


def test_a_held_back_message_comes_with_its_streams_next_though_no_fault_is_left() -> None:
    box, faults = ordered(FaultRequest(fault=FaultKind.REORDER, product="BTC-USD"))
    # the other product's message, after the one that is held back, sees that the order is used up
    assert ids(faults.apply([match("BTC-USD", 1), match("ETH-USD", 7)], 1)) == [7]
    assert box.is_idle
    assert ids(faults.apply([match("ETH-USD", 8)], 2)) == [8]
    assert ids(faults.apply([match("BTC-USD", 2), match("BTC-USD", 3)], 3)) == [2, 1, 3]
    assert ids(faults.apply([match("BTC-USD", 3)], 4)) == [3]


@pytest.mark.parametrize(("seconds", "held_us"), [(None, 3 * SECOND), (0.5, SECOND // 2)])
def test_a_late_message_comes_once_its_time_has_passed_though_no_other_follows(
    seconds: float | None, held_us: int
) -> None:
    box, faults = ordered(FaultRequest(fault=FaultKind.LATE, seconds=seconds))
    assert ids(faults.apply([match("BTC-USD", 1), match("BTC-USD", 2)], 10)) == [2]
    assert box.is_idle, "its seconds are how late one message is, not for how long messages are late"
    assert faults.apply([], 10 + held_us - 1) == []
    assert ids(faults.apply([match("BTC-USD", 3)], 10 + held_us)) == [1, 3]
    assert faults.apply([], 10 + 2 * held_us) == []


def test_a_lost_message_keeps_its_place_and_a_vanished_one_is_forgotten() -> None:
    forgotten: list[tuple[str, int]] = []
    box = FaultBox({}, 1)
    faults = FeedFaults(EXCHANGE, box, FEED_FAULTS, lambda *trade: forgotten.append(trade))
    box.add(FaultRequest(fault=FaultKind.DROP), 0)
    assert [m.fate for m in faults.apply([match("BTC-USD", 1), match("BTC-USD", 2)], 1)] == [Fate.LOST, Fate.SENT]
    assert forgotten == []
    box.add(FaultRequest(fault=FaultKind.VANISH), 0)
    box.add(FaultRequest(fault=FaultKind.DUPLICATE), 0)
    assert [m.fate for m in faults.apply([match("BTC-USD", 3)], 2)] == [Fate.LOST], "no copy tells of it"
    assert forgotten == [("BTC-USD", 3)]


def test_a_bad_copy_comes_beside_the_good_one_or_in_its_place() -> None:
    for replace, expected in ((False, [b"good", b"bad"]), (True, [b"bad"])):
        _, faults = ordered(FaultRequest(fault=FaultKind.ERROR_OBJECT, replace=replace))
        told = faults.apply([match("BTC-USD", 1)], 1)
        assert [b"good" if b"match" in m.payload else b"bad" for m in told] == expected
    _, faults = ordered(FaultRequest(fault=FaultKind.DUPLICATE, replace=True))
    assert ids(faults.apply([match("BTC-USD", 1)], 1)) == [1, 1]


def hit_ids(seed: int, venue: str, batches: Sequence[Sequence[int]], name: str = "drop") -> list[int]:
    channel = {EXCHANGE: "matches", BINANCE: "trade"}[venue]
    faults = FeedFaults(venue, FaultBox({name: 0.1, "binance:duplicate": 0.5}, seed), FEED_FAULTS)
    lost: list[int] = []
    for batch in batches:
        told = faults.apply([match("BTC-USD", each)._replace(channel=channel) for each in batch], 1)
        lost += [m.trade_ids[0] for m in told if m.fate is Fate.LOST]
    return lost


def test_chance_follows_from_the_seed_and_the_trade_whatever_came_before_and_however_it_was_cut() -> None:
    trades = range(5_000)
    whole = hit_ids(1, EXCHANGE, [trades])
    assert 400 < len(whole) < 600
    assert hit_ids(1, EXCHANGE, [trades[at : at + 7] for at in range(0, 5_000, 7)]) == whole
    assert hit_ids(1, EXCHANGE, [trades[2_500:]]) == [trade_id for trade_id in whole if trade_id >= 2_500]
    others = [hit_ids(2, EXCHANGE, [trades]), hit_ids(1, BINANCE, [trades]), hit_ids(1, EXCHANGE, [trades], "vanish")]
    for other in others:
        assert 400 < len(other) < 600
        assert other != whole


def events(*products: str) -> list[Event]:
    market = Market({product: ProductMarket(listing(product), seed=1, rate=5) for product in products})
    market.start(START_US)
    return market.step(START_US + 2 * SECOND)


def feed(venue: str) -> list[WireMessage]:
    if venue == BINANCE:
        return binance_wire.messages(events("BTC-USDT"))
    told = events("BTC-USD")
    return coinbase_wire.messages(told, 1) if venue == EXCHANGE else advanced_wire.messages(told, 0)


def spoilt(venue: str, channel: str, kind: FaultKind) -> tuple[bytes, bytes]:
    """A good message and its bad copy as they leave."""
    box = FaultBox({}, 1)
    box.add(FaultRequest(fault=kind, venue=venue, channel=channel, replace=True), 0)
    good = next(message for message in feed(venue) if message.channel == channel)
    [bad] = FeedFaults(venue, box, FEED_FAULTS).apply([good], 1)
    return good.payload, bad.spoiled(bad.payload)


def parsed(venue: str, payload: bytes) -> Outcome:
    return venues.parse({"venue": venue, "received_at": str(START_US + 3 * SECOND)}, payload)


def verdict(outcome: Outcome) -> str:
    """How the platform takes it: a rejection's reason, or the kind of what it accepts."""
    if isinstance(outcome, Parsed):
        kinds = {i.reason.value if isinstance(i, RejectedItem) else type(i).__name__ for i in outcome.items}
        assert len(kinds) == 1, "all trades of a message are spoilt alike"
        return kinds.pop()
    return outcome.reason.value if isinstance(outcome, Unparseable) else f"ignored {outcome.name}"


TRADES = {EXCHANGE: "matches", ADVANCED: "market_trades", BINANCE: "trade"}
BOOKS = {EXCHANGE: "ticker", ADVANCED: "ticker", BINANCE: "bookTicker"}


@pytest.mark.parametrize("venue", TRADES)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.NULL_PRICE, Reason.MISSING_FIELD),
        (FaultKind.NEGATIVE_SIZE, Reason.NOT_POSITIVE),
        (FaultKind.FUTURE_TIME, Reason.TIME_IN_FUTURE),
        (FaultKind.WRONG_TYPE, Reason.WRONG_TYPE),
        (FaultKind.MALFORMED, Reason.MALFORMED),
        (FaultKind.TRUNCATED, Reason.MALFORMED),
    ],
)
def test_a_spoilt_trade_is_refused_for_what_is_wrong_with_it_at_every_venue(
    venue: str, kind: FaultKind, expected: Reason
) -> None:
    good, bad = spoilt(venue, TRADES[venue], kind)
    assert verdict(parsed(venue, good)) == "Trade"
    assert verdict(parsed(venue, bad)) == expected.value


@pytest.mark.parametrize("venue", TRADES)
def test_a_trade_of_the_year_one_is_no_trade(venue: str) -> None:
    _, bad = spoilt(venue, TRADES[venue], FaultKind.YEAR_ONE)
    # a number that is negative is no time at all, which is what the year one is in milliseconds
    assert verdict(parsed(venue, bad)) == ("bad_time" if venue == BINANCE else "time_before_2009")


def trades_of(outcome: Outcome) -> list[Trade]:
    assert isinstance(outcome, Parsed)
    return [item for item in outcome.items if isinstance(item, Trade)]


@pytest.mark.parametrize("venue", TRADES)
def test_copies_that_parse_differ_from_the_good_one_in_what_their_name_says_alone(venue: str) -> None:
    good = trades_of(parsed(venue, spoilt(venue, TRADES[venue], FaultKind.UNKNOWN_FIELD)[0]))
    copies = {
        kind: trades_of(parsed(venue, spoilt(venue, TRADES[venue], kind)[1]))
        for kind in (
            FaultKind.UNKNOWN_FIELD,
            FaultKind.ID_RESET,
            FaultKind.CLOCK_SKEW,
            FaultKind.CONFLICTING_DUPLICATE,
        )
    }
    assert copies[FaultKind.UNKNOWN_FIELD] == good
    for before, reset in zip(good, copies[FaultKind.ID_RESET], strict=True):
        assert (reset.trade_id, before.trade_id % 1_000_000) == (before.trade_id % 1_000_000, reset.trade_id)
        assert msgspec.structs.replace(reset, trade_id=before.trade_id) == before
        assert reset.trade_id < before.trade_id
    for before, skewed in zip(good, copies[FaultKind.CLOCK_SKEW], strict=True):
        assert before.event_us - skewed.event_us == 5 * 3600 * SECOND
        assert msgspec.structs.replace(skewed, event_us=before.event_us) == before
    for before, other in zip(good, copies[FaultKind.CONFLICTING_DUPLICATE], strict=True):
        assert other.price == before.price + 1
        assert (other.trade_id, other.size, other.event_us) == (before.trade_id, before.size, before.event_us)


@pytest.mark.parametrize("venue", TRADES)
@pytest.mark.parametrize("channels", [TRADES, BOOKS], ids=("trades", "books"))
def test_unknown_and_error_messages_are_ignored_by_name_and_a_new_field_hurts_nobody(
    venue: str, channels: dict[str, str]
) -> None:
    channel = channels[venue]
    unknown = parsed(venue, spoilt(venue, channel, FaultKind.UNKNOWN_TYPE)[1])
    assert isinstance(unknown, Ignored)
    assert "status" in unknown.name
    assert verdict(parsed(venue, spoilt(venue, channel, FaultKind.ERROR_OBJECT)[1])) == "ignored venue_error"
    good, new_field = spoilt(venue, channel, FaultKind.UNKNOWN_FIELD)
    assert json.loads(new_field) != json.loads(good)
    assert parsed(venue, new_field) == parsed(venue, good)
    good, padded = spoilt(venue, channel, FaultKind.OVERSIZE)
    assert len(padded) > 8 * 1024**2
    assert parsed(venue, padded) == parsed(venue, good)


@pytest.mark.parametrize(("venue", "channel"), BOOKS.items())
def test_a_book_can_be_spoilt_too(venue: str, channel: str) -> None:
    def outcome(kind: FaultKind) -> str:
        return verdict(parsed(venue, spoilt(venue, channel, kind)[1]))

    assert outcome(FaultKind.NEGATIVE_SIZE) == Reason.OUT_OF_RANGE.value
    assert outcome(FaultKind.WRONG_TYPE) == Reason.WRONG_TYPE.value
    assert outcome(FaultKind.TRUNCATED) == Reason.MALFORMED.value
    good, bad = spoilt(venue, channel, FaultKind.CONFLICTING_DUPLICATE)
    quotes = [parsed(venue, payload) for payload in (good, bad)]
    assert all(isinstance(q, Parsed) and isinstance(q.items[0], Quote) for q in quotes)
    assert quotes[0] != quotes[1]


def test_every_feed_fault_can_be_done_at_every_feed() -> None:
    for venue, channel in TRADES.items():
        for kind in FEED_FAULTS:
            assert impossible(kind, venue) == ""
            assert refusal(FaultRequest(fault=kind, venue=venue, channel=channel)) == ""
            box = FaultBox({}, 1)
            box.add(FaultRequest(fault=kind), 0)
            FeedFaults(venue, box, FEED_FAULTS).apply(feed(venue), 1)
            assert box.done == Counter({f"{venue}:{kind}": 1}), "its default channel is that of the venue's trades"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"fault": "drop", "venue": "coingecko"}, "drop is a fault of a feed, and coingecko has none"),
        ({"fault": "half_frame", "venue": "coincap"}, "half_frame is a fault of a feed, and coincap has none"),
        ({"fault": "page_hole", "venue": "coingecko"}, "page_hole is a fault of REST trades, and coingecko has none"),
        (
            {"fault": "currency_switch", "venue": "binance"},
            "currency_switch is a fault of an aggregator's page, and binance is an exchange",
        ),
        ({"fault": "drop", "venue": "binance", "channel": "matches"}, "channel is one of trade, bookTicker"),
        (
            {"fault": "drop", "channel": "heartbeat"},
            "channel is one of matches, ticker, market_trades, trade, bookTicker",
        ),
        ({"fault": "null_price", "venue": "coingecko", "channel": "matches"}, "coingecko has no channels"),
        (
            {"fault": "year_one", "venue": "binance", "channel": "bookTicker"},
            "year_one is impossible: bookTicker tells no time",
        ),
        ({"fault": "id_reset", "venue": "binance", "channel": "bookTicker"}, "id_reset is a fault of trades: trade"),
        ({"fault": "drop", "venue": "binance", "product": "BTC-USD"}, "BTC-USD is not traded on binance"),
        ({"fault": "drop", "venue": "mars"}, "venue is one of "),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(request_: dict[str, Any], reason: str) -> None:
    assert refusal(msgspec.convert(request_, FaultRequest)).startswith(reason)


def test_an_order_for_all_venues_waits_for_one_that_can_do_it() -> None:
    box = FaultBox({}, 1)
    for kind in (FaultKind.VANISH, FaultKind.MALFORMED):
        box.add(FaultRequest(fault=kind, channel="trade" if kind is FaultKind.MALFORMED else None), 0)
    every = frozenset(FaultKind)
    assert box.take("coingecko", every, 1) == []
    assert [hit.fault for hit in box.take(BINANCE, every, 1, product="BTC-USDT", channel="trade")] == [
        FaultKind.VANISH,
        FaultKind.MALFORMED,
    ]
    assert PAGE_ONLY_FAULTS.isdisjoint(FEED_FAULTS)


def test_a_request_is_never_hit_by_what_only_a_feed_can_do() -> None:
    box = FaultBox({"half_frame": 1.0, "drop": 1.0, "http_5xx": 1.0}, 1)
    box.add(FaultRequest(fault=FaultKind.LATE), 0)
    every = frozenset(FaultKind)
    assert [hit.fault for hit in box.take(EXCHANGE, every, 1)] == [FaultKind.HTTP_5XX]
    told = {
        hit.fault for hit in box.take(EXCHANGE, FEED_FAULTS, 1, product="BTC-USD", channel="matches", trade_ids=[1])
    }
    assert told == {FaultKind.LATE, FaultKind.HALF_FRAME, FaultKind.DROP}
