"""Whatever arrives, a parser answers: it neither raises nor lets a number through that no table can hold."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Parsed, Quote, RejectedItem, Trade, Unparseable
from marketflow.venues import coinbase_exchange
from marketflow.venues.validation import fields_of, received_us

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
MESSAGES = (
    *(CAPTURES / "coinbase/exchange-matches-btc-eth-2026-07-07.filtered.ndjson").read_bytes().splitlines()[:12],
    *(CAPTURES / "coinbase/cryptofeed-exchange-2021-04-17.match-ticker.ndjson").read_bytes().splitlines()[:12],
    (CAPTURES / "coingecko/markets-docs-example-2024-04.json").read_bytes(),
    (CAPTURES / "coingecko/error-500.json").read_bytes(),
)
HEADER_SETS = (
    {"venue": "coinbase_exchange", "channel": "matches", "received_at": "1783465200000000"},
    {
        "venue": "coinbase_exchange",
        "channel": "trades",
        "received_at": "1783465200000000",
        "product_id": "BTC-USD",
        "http_status": "200",
    },
    {"venue": "coingecko", "channel": "markets", "received_at": "1783465200000000", "vs_currency": "usd"},
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
        assert isinstance(item, Trade | Quote | AssetPrice)
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
def test_arbitrary_bytes_are_answered(headers: dict[str, str], value: bytes) -> None:
    check(headers, value)


@given(headers=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=6), value=st.binary(max_size=40))
def test_arbitrary_headers_are_answered(headers: dict[str, str], value: bytes) -> None:
    check({"venue": "coinbase_exchange", "received_at": "1", **headers}, value)
    check({"venue": "coingecko", "received_at": "1", **headers}, b"[{}]")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A captured message with a few bytes cut, doubled or replaced."""
    value = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(1, 4))):
        if not value:
            break
        at = draw(st.integers(0, len(value) - 1))
        length = draw(st.integers(0, 12))
        value[at : at + length] = draw(st.binary(max_size=12) | st.sampled_from([b"null", b'"', b"1e400", b"\\u0000"]))
    return bytes(value)


@given(headers=st.sampled_from(HEADER_SETS), value=mutated())
@settings(max_examples=400)
def test_mutated_captures_are_answered(headers: dict[str, str], value: bytes) -> None:
    check(headers, value)


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


def test_the_clean_messages_of_the_captures_take_the_fast_way() -> None:
    received = received_us(HEADER_SETS[0])
    for value in MESSAGES[:24]:
        message = coinbase_exchange._FAST.decode(value) if b"subscriptions" not in value else None
        if isinstance(message, coinbase_exchange._Match):
            assert coinbase_exchange._clean_trade(message, received) is not None
        elif isinstance(message, coinbase_exchange._Ticker):
            assert coinbase_exchange._clean_quote(message, received) is not None
    assert fields_of(MESSAGES[0]).has("type")
