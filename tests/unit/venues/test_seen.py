"""What a feed sees of a message: enough to send it on and to count its ids, and never an exception."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketflow.contracts.topics import TICKER, TRADES
from marketflow.venues.feeds import PROTOCOLS
from marketflow.venues.seen import Seen, page_ids

CAPTURES = Path(__file__).resolve().parents[2] / "fixtures" / "captures"
BTC, ETH = "BTC-USD", "ETH-USD"
HUGE = 2**63

TRADE = {"product_id": BTC, "trade_id": "12", "price": "1", "size": "1", "side": "BUY", "time": "…"}


def advanced(channel: str, *events: object, number: object = 7) -> bytes:
    return json.dumps({"channel": channel, "sequence_num": number, "events": list(events)}).encode()


@pytest.mark.parametrize(
    ("venue", "value", "expected"),
    [
        (
            "coinbase_exchange",
            b'{"type":"match","trade_id":5,"product_id":"BTC-USD"}',
            Seen(TRADES, "matches", BTC, ((BTC, 5),)),
        ),
        (
            "coinbase_exchange",
            b'{"type":"last_match","trade_id":5,"product_id":"BTC-USD"}',
            Seen(TRADES, "matches", BTC, ((BTC, 5),)),
        ),
        (
            "coinbase_exchange",
            b'{"type":"heartbeat","last_trade_id":9,"product_id":"ETH-USD"}',
            Seen(TRADES, "heartbeat", ETH, announced=(ETH, 9)),
        ),
        (
            "coinbase_exchange",
            b'{"type":"ticker","trade_id":5,"product_id":"BTC-USD"}',
            Seen(TICKER, "ticker", BTC),
        ),
        ("coinbase_exchange", b'{"type":"match","trade_id":5,"product_id":"XXX-USD"}', Seen(TRADES, "matches")),
        ("coinbase_exchange", b'{"type":"match","trade_id":-5,"product_id":"BTC-USD"}', Seen(TRADES, "undecodable")),
        (
            "binance",
            b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":5}}',
            Seen(TRADES, "trade", "BTC-USDT", (("BTC-USDT", 5),)),
        ),
        (
            "binance",
            b'{"e":"trade","s":"BTCUSDT","t":5}',
            Seen(TRADES, "trade", "BTC-USDT", (("BTC-USDT", 5),)),
        ),
        (
            "binance",
            b'{"stream":"btcusdt@bookTicker","data":{"u":8,"s":"BTCUSDT","b":"1","a":"2"}}',
            Seen(TICKER, "bookTicker", "BTC-USDT"),
        ),
        ("binance", b'{"e":"trade","s":"NOSUCH","t":5}', Seen(TRADES, "trade")),
        ("binance", b'{"e":"trade","s":"BTCUSDT","t":-1}', Seen(TRADES, "trade", "BTC-USDT")),
        ("binance", b'{"e":"trade","s":"BTCUSDT","t":%d}' % HUGE, Seen(TRADES, "trade", "BTC-USDT")),
        ("binance", b'{"result":null,"id":1}', Seen(TRADES, "reply")),
        ("binance", b'{"e":"serverShutdown","E":1}', Seen(TRADES, "serverShutdown")),
        (
            "coinbase_advanced",
            # newest first, as the venue sends them; ascending here, since that is how ids are counted
            advanced("market_trades", {"type": "update", "trades": [{**TRADE, "trade_id": "13"}, TRADE]}),
            Seen(TRADES, "market_trades", BTC, [(BTC, 12), (BTC, 13)], number=7),
        ),
        (
            "coinbase_advanced",
            advanced("market_trades", {"trades": [TRADE]}, {"trades": [{**TRADE, "product_id": ETH}]}),
            Seen(TRADES, "market_trades", None, [(BTC, 12), (ETH, 12)], number=7),
        ),
        (
            "coinbase_advanced",
            advanced("market_trades", {"trades": [{**TRADE, "trade_id": "x"}, {**TRADE, "trade_id": str(HUGE)}]}),
            Seen(TRADES, "market_trades", BTC, [], number=7),
        ),
        (
            "coinbase_advanced",
            advanced("ticker", {"tickers": [{"product_id": BTC}]}, number=1851),
            Seen(TICKER, "ticker", BTC, [], number=1851),
        ),
        ("coinbase_advanced", advanced("heartbeats", {"heartbeat_counter": 3}), Seen(TRADES, "heartbeats", number=7)),
        # what its parser will refuse still has a number
        ("coinbase_advanced", advanced("market_trades", {"trades": 5}), Seen(TRADES, "market_trades", number=7)),
        ("coinbase_advanced", advanced("ticker", number="7"), Seen(TRADES, "undecodable")),
        ("coinbase_advanced", b'{"type":"error","message":"no"}', Seen(TRADES, "none")),
    ],
)
def test_a_feed_sees_topic_product_and_ids(venue: str, value: bytes, expected: Seen) -> None:
    assert PROTOCOLS[venue].look(value) == expected


@pytest.mark.parametrize("venue", PROTOCOLS)
@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"null", b"[]", b"7", b'{"e":', b"[" * 100_000, b'{"type":7}', b'{"channel":7}']
)
def test_looking_at_rubbish_gives_a_message_without_ids(venue: str, value: bytes) -> None:
    seen = PROTOCOLS[venue].look(value)
    assert (seen.topic, seen.product_id, list(seen.trades), seen.announced) == (TRADES, None, [], None)


def test_every_trade_of_a_captured_feed_is_seen_with_the_id_that_its_bytes_say() -> None:
    lines = (CAPTURES / "binance" / "ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson").read_bytes().splitlines()
    told = [json.loads(json.loads(line)["raw"]) if b'"raw"' in line else json.loads(line) for line in lines]
    payloads = [one.get("data", one) for one in told]
    expected = [(f"{one['s'][:3]}-USDT", one["t"]) for one in payloads if one.get("e") == "trade"]
    seen = [PROTOCOLS["binance"].look(json.dumps(one).encode()) for one in told]

    assert len(expected) > 1_000
    assert [each for one in seen for each in one.trades] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'[{"trade_id":5,"price":"1"},{"trade_id":4}]', [5, 4]),
        (b'[{"id":4,"qty":"1"},{"id":5}]', [4, 5]),
        (b' {"trades":[{"trade_id":"5"},{"trade_id":"x"},{"trade_id":"4"}]}', [5, 4]),
        (b"[]", []),
        (b'{"message":"NotFound"}', []),
        (b"[{]", []),
        (b"", []),
        (b"\xff", []),
    ],
)
def test_ids_of_a_page_are_read_in_its_order_and_of_no_page_there_are_none(value: bytes, expected: list[int]) -> None:
    assert page_ids(value) == expected
