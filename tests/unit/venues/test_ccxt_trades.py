"""What the library made of an exchange's trades becomes rows that say so, or is refused by name; the judge agrees."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Outcome, Parsed, RejectedItem, Trade, Unparseable
from marketflow.venues.ccxt_trades import trades_request
from marketflow.verify import wire
from marketflow.verify.wire_items import Message

RECEIVED = 1_783_425_600_500_000  # 2026-07-07T12:00:00.5Z
HEADERS = {"venue": "ccxt_kraken", "channel": "fetch_trades", "product_id": "BTC-USD", "received_at": str(RECEIVED)}
TRADE: dict[str, Any] = {
    **{"id": "87", "timestamp": 1_783_425_600_123, "datetime": "2026-07-07T12:00:00.123Z", "symbol": "BTC/USD"},
    **{"side": "buy", "takerOrMaker": None, "price": 63551.1, "amount": 1e-05, "cost": 0.635511},
    "info": {"anything": ["63551.10000", "0.00001000"]},
}
PRODUCTS = frozenset({"BTC-USD", "ETH-USD"})


def parsed(*trades: Any, **headers: str) -> Outcome:
    return venues.parse(HEADERS | headers, json.dumps(trades).encode())


def one(**change: Any) -> Any:
    outcome = parsed(TRADE | change)
    assert isinstance(outcome, Parsed)
    (item,) = outcome.items
    return item


def judged(*trades: Any, product_id: str | None = "BTC-USD") -> list[tuple[int, str, dict[str, Any]]]:
    value = json.dumps(trades).encode()
    message = Message(value, "ccxt_kraken", "fetch_trades", RECEIVED, None, product_id, None, None, None, None)
    return [(item.index, item.kind, item.fields) for item in wire.read(message, PRODUCTS)]


def test_a_unified_trade_is_a_row_that_says_that_its_numbers_were_floats() -> None:
    assert one() == Trade(
        venue="ccxt_kraken",
        product_id="BTC-USD",
        trade_id=87,
        price=Decimal("63551.1"),
        size=Decimal("0.00001"),
        notional=Decimal("0.635511"),
        taker_side="buy",
        side_raw="buy",
        event_us=1_783_425_600_123_000,
        sequence=None,
        float_born=True,
    )


@given(price=st.floats(1e-3, 1e12), size=st.floats(1e-3, 1e6))
def test_a_number_is_the_shortest_text_of_its_float_or_too_fine_for_a_row(price: float, size: float) -> None:
    item = one(price=price, amount=size)
    wanted = [Decimal(repr(number)) for number in (price, size)]
    if isinstance(item, RejectedItem):
        assert any(number.as_tuple().exponent < -18 for number in wanted)
        assert item.reason is Reason.OUT_OF_RANGE
    else:
        assert [item.price, item.size] == wanted


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"id": "8a6e-11"}, Reason.WRONG_TYPE, "trades of 'ccxt_kraken' have no numeric ids"),
        ({"id": "1783425600123-buy-0.1-5"}, Reason.WRONG_TYPE, "no numeric ids"),
        # the same number by another text would be the same trade
        ({"id": "087"}, Reason.WRONG_TYPE, "no numeric ids"),
        ({"id": "٨٧"}, Reason.WRONG_TYPE, "no numeric ids"),
        ({"id": "-87"}, Reason.WRONG_TYPE, "no numeric ids"),
        ({"id": str(2**63)}, Reason.OUT_OF_RANGE, "beyond 9223372036854775807"),
        ({"id": "9" * 30}, Reason.OUT_OF_RANGE, "beyond"),
        ({"id": 87}, Reason.WRONG_TYPE, "id is"),
        ({"id": None}, Reason.MISSING_FIELD, "id is null"),
        ({"symbol": "BTC/USD:USD"}, Reason.UNKNOWN_PRODUCT, "is not BTC/USD"),
        ({"symbol": "ETH/USD"}, Reason.UNKNOWN_PRODUCT, "is not BTC/USD"),
        ({"side": "Buy"}, Reason.UNKNOWN_SIDE, "neither buy nor sell"),
        ({"side": None}, Reason.MISSING_FIELD, "side is null"),
        # the library's own maintainers call that a bug: then nobody knows whose side is told
        ({"takerOrMaker": "maker"}, Reason.UNKNOWN_SIDE, "takerOrMaker is 'maker'"),
        ({"price": 0.0}, Reason.NOT_POSITIVE, "price 0 is not positive"),
        ({"price": None}, Reason.MISSING_FIELD, "price is null"),
        ({"amount": -1.5}, Reason.NOT_POSITIVE, "amount -1.5"),
        ({"amount": 1.2345678901234567e-07}, Reason.OUT_OF_RANGE, "more than 18 fraction digits"),
        ({"timestamp": None}, Reason.MISSING_FIELD, "timestamp is null"),
        ({"timestamp": 1_783_425_661_000}, Reason.TIME_IN_FUTURE, "after receipt"),
    ],
)
def test_what_cannot_be_a_row_is_refused_by_name_and_by_the_judge(
    change: dict[str, Any], reason: Reason, says: str
) -> None:
    item = one(**change)
    assert isinstance(item, RejectedItem)
    assert item.reason is reason
    assert says in item.detail
    assert [(index, kind) for index, kind, _ in judged(TRADE | change)] == [(0, "refused")]


def test_a_bad_trade_does_not_take_its_neighbours_along() -> None:
    other = TRADE | {"id": "88", "side": "sell", "takerOrMaker": "taker"}
    outcome = parsed(TRADE, TRADE | {"id": "x"}, other)
    assert isinstance(outcome, Parsed)
    assert [type(item) for item in outcome.items] == [Trade, RejectedItem, Trade]
    told = judged(TRADE, TRADE | {"id": "x"}, other)
    assert [(index, kind) for index, kind, _ in told] == [(0, "trades"), (1, "refused"), (2, "trades")]
    for index, _, fields in (told[0], told[2]):
        item = outcome.items[index]
        assert isinstance(item, Trade)
        own = {name: getattr(item, name) for name in ("venue", "product_id", "trade_id", "price", "size")}
        own |= {name: getattr(item, name) for name in ("taker_side", "side_raw", "sequence", "float_born")}
        assert fields == own | {"event_ts": item.event_us}


def test_an_answer_without_trades_is_ignored_by_name() -> None:
    assert parsed() == Ignored("empty_page")
    assert judged() == []


@pytest.mark.parametrize("product_id", ["ABC-USD", ""])
def test_an_answer_of_no_known_product_is_one_refused_message(product_id: str) -> None:
    outcome = parsed(TRADE, product_id=product_id)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.BAD_HEADERS
    assert [(index, kind) for index, kind, _ in judged(TRADE, product_id=product_id or None)] == [(-1, "refused")]


def test_an_object_in_place_of_the_array_is_one_refused_message() -> None:
    outcome = venues.parse(HEADERS, json.dumps(TRADE).encode())
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.UNEXPECTED_SHAPE


def test_a_request_is_one_text_whatever_the_order_of_its_arguments() -> None:
    assert trades_request("BTC-USD", 1_783_425_600_123, 500) == (
        "fetch_trades?limit=500&since=1783425600123&symbol=BTC%2FUSD"
    )
    assert trades_request("BTC-USD", None, 500) == "fetch_trades?limit=500&symbol=BTC%2FUSD"
