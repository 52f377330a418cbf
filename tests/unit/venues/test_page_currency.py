"""A page asked in dollars whose numbers are another currency's becomes no row: by the parser and by the judge."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Parsed, RejectedItem
from marketflow.contracts.stable_coins import PEGGED_TO_USD
from marketflow.ingest.captures import files_of
from marketflow.ingest.replay import Options, _venue_of, prepared
from marketflow.lake import live
from marketflow.verify import wire
from marketflow.verify.wire_items import Message

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
PAGE = CAPTURES / "coingecko" / "markets-2022-01-rank6-20.json"  # with usd-coin and binance-usd, both at 1.0
FIGURES = ("current_price", "market_cap", "fully_diluted_valuation", "total_volume", "high_24h", "low_24h")
RECEIVED = 1_783_465_200_000_000
HEADERS = {
    "received_at": str(RECEIVED),
    "http_status": "200",
    "poll_id": "p",
    "poll_started_at": str(RECEIVED - 1),
    "origin": "live",
}
EURO = Decimal("0.92")


def in_another(coins: list[dict[str, Any]], rate: Decimal = EURO) -> list[dict[str, Any]]:
    """The page with all its money times the rate."""
    return [
        {name: figure * rate if name in FIGURES and figure is not None else figure for name, figure in coin.items()}
        for coin in coins
    ]


def captured() -> list[dict[str, Any]]:
    return list(json.loads(PAGE.read_text(), parse_float=Decimal))


def coin(asset_id: str, price: str) -> dict[str, Any]:
    return {
        **{"id": asset_id, "symbol": asset_id[:4], "name": asset_id, "current_price": Decimal(price)},
        "last_updated": "2026-07-07T22:58:16.156Z",
    }


def bytes_of(body: object) -> bytes:
    return json.dumps(body, default=float).encode()


def reasons(body: object, vs_currency: str | None = "usd", venue: str = "coingecko") -> Counter[str]:
    """What parser and judge, who must agree, make of the items of a page."""
    headers = HEADERS | {"venue": venue} | ({"vs_currency": vs_currency} if vs_currency else {})
    outcome = venues.parse(headers, bytes_of(body))
    assert isinstance(outcome, Parsed), outcome
    message = Message(
        bytes_of(body), venue, None, RECEIVED, 200, None, vs_currency or "usd", "p", RECEIVED - 1, oversize=None
    )
    judged = wire.read(message, frozenset())
    assert [item.kind == "refused" for item in judged] == [isinstance(item, RejectedItem) for item in outcome.items]
    return Counter(item.reason if isinstance(item, RejectedItem) else "priced" for item in outcome.items)


def coincap_page(*coins: tuple[str, str]) -> dict[str, Any]:
    data = [{"id": one, "rank": "1", "symbol": one, "name": one, "priceUsd": price} for one, price in coins]
    return {"data": data, "timestamp": RECEIVED // 1000}


def cryptocompare_page(*coins: tuple[str, str, str]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for symbol, currency, price in coins:
        figures = {"FROMSYMBOL": symbol, "TOSYMBOL": currency, "PRICE": Decimal(price), "LASTUPDATE": RECEIVED // 10**6}
        raw.setdefault(symbol, {})[currency] = figures
    return {"RAW": raw}


def test_the_captured_page_is_accepted_and_times_the_euro_refused_as_a_whole() -> None:
    assert reasons(captured()) == {"priced": 15}
    assert reasons(in_another(captured())) == {Reason.CURRENCY_SUSPECT: 15}


def test_no_carried_capture_is_suspected() -> None:
    pages = 0
    options = Options(vs_currency="usd")
    for path in files_of([CAPTURES]):
        for message in list(prepared(path, _venue_of(path, options), options))[:50]:
            outcome = venues.parse(message.headers, message.value)
            items = outcome.items if isinstance(outcome, Parsed) else ()
            assert not any(isinstance(one, RejectedItem) and one.reason == Reason.CURRENCY_SUSPECT for one in items)
            pages += any(isinstance(one, AssetPrice) for one in items)
    assert pages >= 3


@pytest.mark.parametrize(
    ("told", "suspected"),
    [
        # CoinGecko's pages in usd of 2022-09-23, 2024-02-09 and, in eur, of 2024-03-21
        ({"tether": "1.001", "usd-coin": "1.001"}, False),
        ({"tether": "0.99968", "usd-coin": "0.998084"}, False),
        ({"tether": "0.915505", "usd-coin": "0.916419"}, True),
        # 2023-03-11: usd-coin fell to 0.877647 and took dai with it; tether stayed
        ({"tether": "1.002", "usd-coin": "0.8776", "dai": "0.8790"}, False),
        # one that lost its peg in a page that is in euros
        ({"tether": "0.9155", "usd-coin": "0.9164", "usdd": "0.61"}, True),
        # one alone says nothing, nor do two that disagree
        ({"tether": "0.92"}, False),
        ({"tether": "0.92", "usd-coin": "0.89"}, False),
        ({"tether": "150.1", "usd-coin": "150.2"}, True),  # yen
        ({"tether": "0.0000158", "usd-coin": "0.0000158"}, True),  # bitcoin
        # the rate of a currency within 3 % of the dollar cannot be told from a dollar
        ({"tether": "0.9700", "usd-coin": "0.9700"}, False),
        ({"tether": "0.9699", "usd-coin": "0.9699"}, True),
        ({"tether": "1.03", "usd-coin": "1.0302"}, False),
        ({"bitcoin": "0.92", "ethereum": "0.92"}, False),
        ({}, False),
    ],
)
def test_the_stable_coins_of_a_page_decide(told: dict[str, str], suspected: bool) -> None:
    coins = [coin("bitcoin", "61355"), *(coin(name, price) for name, price in told.items() if name != "bitcoin")]
    found = reasons(coins)
    assert found == ({Reason.CURRENCY_SUSPECT: len(coins)} if suspected else {"priced": len(coins)})
    assert set(reasons(coins, "eur")) == {"priced"}  # of another currency's rate a page says nothing


def test_what_was_refused_for_itself_keeps_its_reason_and_is_no_witness() -> None:
    bad = coin("usds", "1") | {"current_price": None}
    assert reasons([coin("tether", "0.92"), coin("usd-coin", "0.921"), bad]) == {
        Reason.CURRENCY_SUSPECT: 2,
        Reason.NULL_PRICE: 1,
    }


def test_coincaps_pages_are_held_to_the_same() -> None:
    assert reasons(coincap_page(("bitcoin", "6e4"), ("tether", "1.0001")), None, "coincap") == {"priced": 2}
    switched = coincap_page(("bitcoin", "6e4"), ("tether", "0.9203"), ("multi-collateral-dai", "0.9201"))
    assert reasons(switched, None, "coincap") == {Reason.CURRENCY_SUSPECT: 3}


def test_cryptocompares_page_is_refused_with_all_its_currencies_where_its_dollars_are_none() -> None:
    good = [("BTC", "USD", "6e4"), ("USDT", "USD", "0.9999"), ("USDC", "USD", "1.0"), ("USDT", "EUR", "0.92")]
    assert reasons(cryptocompare_page(*good), None, "cryptocompare") == {"priced": 4}
    bad = [("BTC", "USD", "6e4"), ("USDT", "USD", "0.9199"), ("USDC", "USD", "0.92"), ("USDT", "EUR", "0.92")]
    assert reasons(cryptocompare_page(*bad), None, "cryptocompare") == {Reason.CURRENCY_SUSPECT: 4}


def test_the_live_query_takes_nothing_from_such_a_page() -> None:
    headers = HEADERS | {"venue": "coingecko", "channel": "markets", "vs_currency": "usd"}
    pages = [{"headers": json.dumps(headers), "value": bytes_of(body)} for body in (in_another(captured()), captured())]
    assert live.observations(pages[:1]) == []
    assert len(live.observations(pages)) == 15


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*sorted(PEGGED_TO_USD["coingecko"])[:6], "bitcoin", "ethereum"]),
            st.decimals("0.90", "1.10", places=4),
        ),
        max_size=7,
    )
)
def test_parser_and_judge_agree_on_any_page_and_one_coin_near_a_dollar_clears_it(
    told: list[tuple[str, Decimal]],
) -> None:
    if not told:
        return
    found = reasons([coin(name, str(price)) for name, price in told])
    near = any(name in PEGGED_TO_USD["coingecko"] and abs(price - 1) <= Decimal("0.03") for name, price in told)
    assert len(found) == 1
    assert not (near and Reason.CURRENCY_SUSPECT in found)
