"""Whatever arrives, a parser answers: it neither raises nor lets a number through that no table can hold."""

from __future__ import annotations

import json
import re
from decimal import Context, Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Candle, Ignored, Parsed, Quote, RejectedItem, Trade, Unparseable
from marketflow.contracts.topics import TOPICS
from marketflow.venues import binance, coinbase_advanced, coinbase_exchange, coincap, coingecko, cryptocompare
from marketflow.venues.validation import fields_of, received_us
from tests.candle_pages import PAGES

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
EXCHANGE = (
    *(CAPTURES / "coinbase/exchange-matches-btc-eth-2026-07-07.filtered.ndjson").read_bytes().splitlines()[:12],
    *(CAPTURES / "coinbase/cryptofeed-exchange-2021-04-17.match-ticker.ndjson").read_bytes().splitlines()[:12],
)
STREAM = (CAPTURES / "binance/ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson").read_bytes().splitlines()
STREAM_TRADES = tuple(
    line for line in STREAM if line.startswith((b'{"stream":"btcusdt@trade"', b'{"stream":"ethusdt@trade"'))
)
OLD_TRADES = b'[{"id":28457,"price":"4.00000100","qty":"12.0","time":1499865549590,"isBuyerMaker":true}]'
# messages of each venue to begin with: captures, or own figures in the shape of its documentation
MESSAGES = {
    "coinbase_exchange": EXCHANGE,
    "coingecko": (
        (CAPTURES / "coingecko/markets-docs-example-2024-04.json").read_bytes(),
        (CAPTURES / "coingecko/error-500.json").read_bytes(),
    ),
    "binance": (
        *STREAM_TRADES[:12],
        min((line for line in STREAM if b"depthUpdate" in line), key=len),
        b'{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}',
        OLD_TRADES,
        b'[{"symbol":"ADAUSDT","lastPrice":"4.0","quoteVolume":"15.3","priceChangePercent":"-9","closeTime":1499869899040}]',
        b'{"error":{"code":2,"msg":"Invalid request"},"id":1}',
    ),
    "coinbase_advanced": (
        b'{"channel":"market_trades","timestamp":"2025-12-31T06:00:12.516946132Z","sequence_num":1,"events":[{"type":'
        b'"update","trades":[{"product_id":"BTC-USD","trade_id":"929248657","price":"88355.59","size":"0.00136573",'
        b'"time":"2025-12-31T06:00:12.44524Z","side":"SELL"}]}]}',
        b'{"channel":"ticker","timestamp":"2025-12-31T06:00:12.516946132Z","sequence_num":2,"events":[{"type":"update",'
        b'"tickers":[{"type":"ticker","product_id":"BTC-USD","price":"88355.59","volume_24_h":"5410.7","best_bid":'
        b'"88355.58","best_bid_quantity":"0.02","best_ask":"88355.59","best_ask_quantity":"0.16"}]}]}',
        b'{"channel":"heartbeats","sequence_num":3,"events":[{"heartbeat_counter":42}]}',
        b'{"trades":[{"product_id":"ETH-USD","trade_id":"7","price":"3.5","size":"1","time":"2025-12-31T06:00:12Z",'
        b'"side":"BUY"}],"best_bid":"3.4","best_ask":"3.5"}',
    ),
    "coincap": (
        b'{"data":[{"id":"bitcoin","rank":"1","symbol":"BTC","name":"Bitcoin","supply":"19788862.0000000000000000",'
        b'"maxSupply":null,"priceUsd":"96243.8957644504882220","changePercent24Hr":"-0.9762522061124105"}],'
        b'"timestamp":1739399343596}',
    ),
    "cryptocompare": (
        b'{"RAW":{"BTC":{"USD":{"FROMSYMBOL":"BTC","TOSYMBOL":"USD","PRICE":63551.02,"LASTUPDATE":1783465157,'
        b'"MKTCAP":1272958261746.86,"CHANGEPCT24HOUR":-0.7023070132264649}}},"DISPLAY":{}}',
        b'{"Response":"Error","Message":"You are over your rate limit","Type":99,"RateLimit":{},"Data":{}}',
    ),
    "ccxt_kraken": (
        b'[{"id":"87","timestamp":1783465157123,"datetime":"2026-07-07T22:59:17.123Z","symbol":"BTC/USD","side":"buy",'
        b'"takerOrMaker":null,"price":63551.1,"amount":1e-05,"cost":0.635511,"info":["63551.10000","0.00001000"]}]',
    ),
}
MESSAGES = {venue: (*messages, *([PAGES[venue][1]] if venue in PAGES else [])) for venue, messages in MESSAGES.items()}
RECEIVED = {"received_at": "1783465200000000"}
HEADER_SETS = (
    {"venue": "coinbase_exchange", "channel": "matches", **RECEIVED},
    {
        "venue": "coinbase_exchange",
        "channel": "trades",
        **RECEIVED,
        "product_id": "BTC-USD",
        "http_status": "200",
    },
    {"venue": "coingecko", "channel": "markets", **RECEIVED, "vs_currency": "usd"},
    {"venue": "binance", "channel": "trade", **RECEIVED},
    {"venue": "binance", "channel": "historicalTrades", **RECEIVED, "product_id": "BTC-USDT", "http_status": "200"},
    {"venue": "binance", "channel": "ticker_24hr", **RECEIVED, "http_status": "200"},
    {"venue": "coinbase_advanced", "channel": "market_trades", **RECEIVED},
    {"venue": "coinbase_advanced", "channel": "trades", **RECEIVED, "http_status": "200"},
    {"venue": "coincap", "channel": "assets", **RECEIVED, "http_status": "200"},
    {"venue": "cryptocompare", "channel": "pricemultifull", **RECEIVED, "http_status": "200"},
    {"venue": "ccxt_kraken", "channel": "fetch_trades", **RECEIVED, "product_id": "BTC-USD"},
    *(headers for headers, _ in PAGES.values()),
)
LIMIT = Decimal(10) ** 20


def check(headers: dict[str, str], value: bytes) -> None:
    """The law: one of three answers, and every number in it fits Decimal(38,18), every time and id 64 bits."""
    outcome = venues.parse(headers, value)
    if isinstance(outcome, Ignored):
        assert outcome.name.isprintable()
        return
    if isinstance(outcome, Unparseable):
        assert isinstance(outcome.reason, Reason)
        assert outcome.detail
        return
    assert isinstance(outcome, Parsed)
    assert outcome.items
    for item in outcome.items:
        if isinstance(item, RejectedItem):
            assert item.detail
            assert "\x00" not in item.detail
            continue
        assert isinstance(item, Trade | Quote | AssetPrice | Candle)
        for name in item.__struct_fields__:
            field = getattr(item, name)
            if isinstance(field, Decimal):
                assert abs(field) < LIMIT, (name, field)
                assert field == field.quantize(Decimal("1e-18"), context=_WIDE), (name, field)
            elif isinstance(field, int):
                assert 0 <= field < 2**63, (name, field)
            elif isinstance(field, str):
                assert field, name
                assert "\x00" not in field


_WIDE = Context(prec=60)


@given(headers=st.sampled_from(HEADER_SETS), value=st.binary(max_size=200))
@example(headers=HEADER_SETS[0], value=b'{"type":"match","trade_id":' + b"9" * 5000 + b"}")
@example(headers=HEADER_SETS[0], value=b'{"type":"match","price":1e999999999999}')
@example(headers=HEADER_SETS[2], value=b'[{"id":"x","current_price":1e-999999999}]')
@example(
    headers=HEADER_SETS[3], value=b'{"e":"trade","s":"BTCUSDT","p":"1","q":"1","m":true,"t":1,"T":' + b"9" * 5000 + b"}"
)
@example(headers=HEADER_SETS[5], value=b'{"symbol":"BTCUSDT","lastPrice":1e999999999,"closeTime":1}')
@example(headers=HEADER_SETS[7], value=b'{"trades":[{"product_id":"BTC-USD","trade_id":"' + b"9" * 5000 + b'"}]}')
@example(
    headers=HEADER_SETS[8], value=b'{"data":[{"id":"x","priceUsd":"1","rank":1e999999999}],"timestamp":1783465157000}'
)
@example(headers=PAGES["coinbase_exchange"][0], value=b"[[1,1e999999999,2,3,4," + b"9" * 5000 + b"]]")
@example(headers=PAGES["binance"][0], value=b"[" * 5000)
@example(headers=PAGES["coinbase_advanced"][0], value=b'{"candles":[{"start":"' + b"9" * 5000 + b'"}]}')
@example(headers=PAGES["cryptocompare"][0], value=b'{"Response":"","Data":{"Data":[{"time":1e99}]}}')
@example(headers=HEADER_SETS[9], value=b'{"RAW":{"x":{"y":{"FROMSYMBOL":"x","CHANGEPCT24HOUR":-1e-999999999}}}}')
def test_arbitrary_bytes_are_answered(headers: dict[str, str], value: bytes) -> None:
    check(headers, value)


TOPICS_OF = (
    binance.topic_of,
    coinbase_advanced.topic_of,
    coinbase_exchange.topic_of,
    coincap.topic_of,
    coingecko.topic_of,
    cryptocompare.topic_of,
)


@given(value=st.binary(max_size=60))
@example(value=b'{"stream":1,"data":' + b"[" * 100_000)
def test_arbitrary_bytes_have_a_topic(value: bytes) -> None:
    assert all(topic_of(value) in TOPICS for topic_of in TOPICS_OF)


@given(headers=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=6), value=st.binary(max_size=40))
def test_arbitrary_headers_are_answered(headers: dict[str, str], value: bytes) -> None:
    for venue, messages in MESSAGES.items():
        check({"venue": venue, "received_at": "1", **headers}, value)
        check({"venue": venue, "received_at": "1", **headers}, messages[0])
        check({"venue": venue, "received_at": "1", **headers}, b"[{}]")


@st.composite
def mutated(draw: st.DrawFn, messages: tuple[bytes, ...]) -> bytes:
    """A message with a few bytes cut, doubled or replaced."""
    value = bytearray(draw(st.sampled_from(messages)))
    for _ in range(draw(st.integers(1, 4))):
        if not value:
            break
        at = draw(st.integers(0, len(value) - 1))
        length = draw(st.integers(0, 12))
        value[at : at + length] = draw(st.binary(max_size=12) | st.sampled_from([b"null", b'"', b"1e400", b"\\u0000"]))
    return bytes(value)


@pytest.mark.parametrize("venue", sorted(MESSAGES))
@given(data=st.data())
@settings(max_examples=200)
def test_mutated_messages_are_answered(venue: str, data: st.DataObject) -> None:
    headers = data.draw(st.sampled_from([one for one in HEADER_SETS if one["venue"] == venue]))
    check(headers, data.draw(mutated(MESSAGES[venue])))


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (HEADER_SETS[0], EXCHANGE[1]),
        (HEADER_SETS[3], STREAM_TRADES[0]),
        (HEADER_SETS[4], OLD_TRADES),
        (HEADER_SETS[6], MESSAGES["coinbase_advanced"][0]),
    ],
    ids=["coinbase_exchange", "binance", "binance-rest", "coinbase_advanced"],
)
def test_a_notional_that_only_its_rounding_takes_out_of_range_is_refused(headers: dict[str, str], value: bytes) -> None:
    # the product is 1e-36 below 10^20, which has 21 integer digits
    price, size = b"10000000000.000000000000000001", b"9999999999.999999999999999999"
    value = re.sub(rb'"(price|p)":"[^"]*"', rb'"\1":"' + price + b'"', value)
    value = re.sub(rb'"(size|q|qty)":"[^"]*"', rb'"\1":"' + size + b'"', value)
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Parsed)
    assert [item.reason for item in outcome.items if isinstance(item, RejectedItem)] == [Reason.OUT_OF_RANGE]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
numbers = st.decimals(allow_nan=False, allow_infinity=False).map(str)
names = st.sampled_from(
    ["trade_id", "price", "size", "side", "time", "product_id", "sequence", "best_bid", "best_ask", "best_bid_size"]
)


@given(
    kind=st.sampled_from(["match", "last_match", "ticker"]),
    changes=st.dictionaries(names, json_values | numbers, max_size=3),
)
@settings(max_examples=400)
def test_the_fast_way_and_the_careful_way_give_the_same_answer(kind: str, changes: dict[str, object]) -> None:
    message: dict[str, object] = {
        "type": kind,
        "trade_id": 7,
        "price": "10.10",
        "size": "0.5",
        "side": "buy",
        "time": "2026-07-07T22:58:16.156605Z",
        "product_id": "BTC-USD",
        "sequence": 9,
        "best_bid": "10.0",
        "best_ask": "10.2",
    }
    value = json.dumps(message | changes).encode()
    headers = HEADER_SETS[0]
    assert venues.parse(headers, value) == coinbase_exchange._careful(value, received_us(headers))


@pytest.mark.parametrize(
    "around",
    ["{}", '{{"stream":"btcusdt@trade","data":{}}}', '{{"stream":null,"data":{}}}'],
    ids=["bare", "enveloped", "stream-null"],
)
@given(
    without=st.sets(st.sampled_from(["e", "E", "s", "t", "p", "q", "T", "m"]), max_size=1),
    changes=st.dictionaries(st.sampled_from(["s", "t", "p", "q", "T", "m"]), json_values | numbers, max_size=3),
)
@settings(max_examples=200)
def test_the_two_ways_give_the_same_answer_at_binance(
    around: str, without: set[str], changes: dict[str, object]
) -> None:
    message = {"e": "trade", "E": 1783465157897, "s": "BTCUSDT", "t": 7, "p": "10.10", "q": "0.5", "T": 1783465157897}
    kept = {name: value for name, value in (message | {"m": True} | changes).items() if name not in without}
    value = around.format(json.dumps(kept)).encode()
    headers = HEADER_SETS[3]
    assert venues.parse(headers, value) == binance._careful(value, received_us(headers))


def test_the_clean_messages_of_the_captures_take_the_fast_way() -> None:
    received = received_us(HEADER_SETS[0])
    for value in EXCHANGE:
        message = coinbase_exchange._FAST.decode(value) if b"subscriptions" not in value else None
        if isinstance(message, coinbase_exchange._Match):
            assert coinbase_exchange._clean_trade(message, received) is not None
        elif isinstance(message, coinbase_exchange._Ticker):
            assert coinbase_exchange._clean_quote(message, received) is not None
    assert fields_of(EXCHANGE[0]).has("type")
    assert len(STREAM_TRADES) == 1163
    for value in STREAM_TRADES:
        assert binance._clean_trade(binance._FAST_WRAPPED.decode(value).data, received) is not None
