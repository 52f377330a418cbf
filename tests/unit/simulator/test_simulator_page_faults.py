"""What a fault does to a page of each venue, as our own parsers judge it; and what no venue can do."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from simulator_rest_world import SECOND_US, World, now_us

from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Outcome, Parsed, RejectedItem, Trade, Unparseable
from marketflow.contracts.stable_coins import PEGGED_TO_USD
from marketflow.errors import ConfigurationError
from marketflow.simulator import configuration
from marketflow.simulator.faults import FEED_CHANNELS, VENUES, FaultBox, FaultKind, FaultRequest, impossible
from marketflow.simulator.page_faults import ItemShape, Page, kinds_of
from marketflow.simulator.truth import TruthFile, TruthPrice, told_price_line
from marketflow.venues import parse

FEEDS = frozenset(FEED_CHANNELS)
# venue, channel of its parser, path
PAGES = {
    "coinbase_exchange": ("trades", "/coinbase_exchange/products/BTC-USD/trades?limit=9"),
    "coinbase_advanced": ("trades", "/coinbase_advanced/api/v3/brokerage/market/products/BTC-USD/ticker?limit=9"),
    "binance": ("historicalTrades", "/binance/api/v3/historicalTrades?symbol=BTCUSDT&limit=9"),
    "coingecko": ("markets", "/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=9"),
    "coincap": ("assets", "/coincap/v3/assets?limit=9"),
    "cryptocompare": ("pricemultifull", "/cryptocompare/data/pricemultifull?fsyms=BTC,ETH,SOL&tsyms=USD,EUR"),
}
AGGREGATORS = tuple(venue for venue in PAGES if venue not in FEEDS)
ITEM_REASONS = {
    "null_price": {Reason.MISSING_FIELD, Reason.NULL_PRICE},
    "negative_size": {Reason.NOT_POSITIVE},
    "future_time": {Reason.TIME_IN_FUTURE},
    "year_one": {Reason.TIME_BEFORE_2009},
    "wrong_type": {Reason.WRONG_TYPE},
    "unknown_type": {Reason.MISSING_FIELD, Reason.UNKNOWN_PRODUCT},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    now = now_us()
    made = World(tmp_path_factory.mktemp("home"), now - 20 * SECOND_US)
    made.run(now, now - 20 * SECOND_US)
    return made


def outcome_of(venue: str, body: bytes) -> Outcome:
    product_id = "BTC-USDT" if venue == "binance" else "BTC-USD"
    headers = {"venue": venue, "channel": PAGES[venue][0], "product_id": product_id, "vs_currency": "usd"}
    return parse({**headers, "received_at": str(now_us())}, body)


async def ask(world: World, venue: str, **fault: Any) -> bytes:
    if fault:
        world.order(venue=venue, **({"channel": "rest"} if venue in FEEDS else {}), **fault)
    status, body, _ = await world.ask(PAGES[venue][1])
    assert status == 200
    assert world.box.pending(now_us()) == [], "it was done"
    return body


def items_of(venue: str, body: bytes) -> tuple[Any, ...]:
    outcome = outcome_of(venue, body)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


@pytest.mark.parametrize("venue", PAGES)
@pytest.mark.parametrize("fault", ITEM_REASONS)
async def test_a_bad_item_comes_beside_the_good_ones_and_is_refused_by_its_reason(
    world: World, venue: str, fault: str
) -> None:
    good = items_of(venue, await ask(world, venue))
    bad = outcome_of(venue, await ask(world, venue, fault=fault))
    if venue == "coincap" and fault in ("future_time", "year_one"):
        # the page's time is all that it has
        assert isinstance(bad, Unparseable)
        assert bad.reason in ITEM_REASONS[fault]
        return
    assert isinstance(bad, Parsed)
    assert [type(item) for item in bad.items[:-1]] == [type(item) for item in good]
    refused = bad.items[-1]
    assert isinstance(refused, RejectedItem)
    assert refused.reason in ITEM_REASONS[fault]


@pytest.mark.parametrize("venue", PAGES)
async def test_a_doubled_item_is_the_same_or_has_another_price(world: World, venue: str) -> None:
    for fault, is_same in (("duplicate", True), ("unknown_field", True), ("conflicting_duplicate", False)):
        first, *_, last = items_of(venue, await ask(world, venue, fault=fault))
        assert isinstance(first, Trade | AssetPrice)
        assert (last == first) is is_same
        assert (last.price == first.price) is is_same
        identity = ("trade_id", "event_us") if venue in FEEDS else ("asset_id", "vs_currency", "last_updated_us")
        assert [getattr(last, name) for name in identity] == [getattr(first, name) for name in identity]


@pytest.mark.parametrize("venue", PAGES)
async def test_a_skewed_clock_is_hours_behind(world: World, venue: str) -> None:
    last = items_of(venue, await ask(world, venue, fault="clock_skew"))[-1]
    told_us = last.event_us if venue in FEEDS else last.last_updated_us
    assert 2 * 3600 < (now_us() - told_us) / SECOND_US < 4 * 3600


@pytest.mark.parametrize("venue", PAGES)
async def test_a_whole_answer_can_be_broken_empty_or_an_error(world: World, venue: str) -> None:
    for fault in ("malformed", "truncated"):
        outcome = outcome_of(venue, await ask(world, venue, fault=fault))
        assert isinstance(outcome, Unparseable)
        assert outcome.reason is Reason.MALFORMED
    assert await ask(world, venue, fault="empty_array") == b"[]"
    assert await ask(world, venue, fault="empty_object") == b"{}"
    error = await ask(world, venue, fault="error_object")
    assert not isinstance(outcome_of(venue, error), Parsed)
    assert json.loads(error)
    assert isinstance(outcome_of("cryptocompare", error), Ignored) is (venue == "cryptocompare")


@pytest.mark.parametrize("venue", PAGES)
async def test_an_oversize_answer_is_above_eight_mebibytes(world: World, venue: str) -> None:
    assert len(await ask(world, venue, fault="oversize")) > 8 * 1024**2


@pytest.mark.parametrize("venue", sorted(FEEDS))
async def test_a_hole_leaves_one_trade_out_of_the_middle(world: World, venue: str) -> None:
    good = items_of(venue, await ask(world, venue))
    world.order(venue=venue, fault="page_hole")
    holed = items_of(venue, (await world.ask(PAGES[venue][1]))[1])
    assert holed == good[:4] + good[5:]
    assert items_of(venue, await ask(world, venue)) == good


@pytest.mark.parametrize("venue", AGGREGATORS)
async def test_switched_prices_are_of_eur_under_the_name_of_usd_and_the_truth_stays(
    world: World, venue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = items_of(venue, await ask(world, venue))
    page = await ask(world, venue, fault="currency_switch")
    if venue != "cryptocompare":  # its page here has no stable coin
        refused = items_of(venue, page)
        assert {getattr(each, "reason", None) for each in refused} == {Reason.CURRENCY_SUSPECT}
        monkeypatch.setitem(PEGGED_TO_USD, venue, frozenset())  # to read what it says all the same
    switched = items_of(venue, page)
    assert [(each.asset_id, each.vs_currency) for each in switched] == [
        (each.asset_id, each.vs_currency) for each in good
    ]
    for told, fair in zip(switched, good, strict=True):
        rate = Decimal("1.08") if fair.vs_currency == "eur" else 1 / Decimal("1.08")
        for name in ("price", "market_cap", "volume_24h"):
            assert float(getattr(told, name)) == pytest.approx(float(getattr(fair, name) * rate), rel=1e-3)
        if fair.high_24h is not None:
            assert told.low_24h <= told.price <= told.high_24h
        fact = world.prices(venue)[told.asset_id, told.vs_currency, told.last_updated_us]
        assert fact == (fair.price, fair.market_cap)


async def test_a_switch_lasts_as_often_as_long_and_as_likely_as_asked(world: World) -> None:
    async def is_switched() -> bool:
        fair = Decimal(world.simulation.assets.published["tether", "usd"].price)
        page = await world.get("/coincap/v3/assets?ids=tether")
        return Decimal(page["data"][0]["priceUsd"]) < fair * Decimal("0.95")

    world.order(venue="coincap", fault="currency_switch", count=3)
    assert [await is_switched() for _ in range(5)] == [True, True, True, False, False]
    world.order(venue="coincap", fault="currency_switch", seconds=600)
    assert [await is_switched() for _ in range(5)] == [True] * 5
    world.box.clear()
    world.open({"coincap:currency_switch": 0.5})
    switched = sum([await is_switched() for _ in range(200)])
    world.open()
    assert 60 < switched < 140


async def test_a_feeds_fault_is_not_eaten_by_a_page(world: World) -> None:
    world.order(venue="binance", fault="null_price")
    await world.ask(PAGES["binance"][1])
    assert [fault.request.fault for fault in world.box.pending(now_us())] == [FaultKind.NULL_PRICE]
    world.box.clear()


async def test_one_object_is_spoiled_in_its_place(world: World) -> None:
    path = "/binance/api/v3/ticker/24hr?symbol=BTCUSDT"
    for fault, field, value in (("null_price", "lastPrice", None), ("year_one", "closeTime", 0)):
        world.order(venue="binance", channel="rest", fault=fault)
        assert (await world.get(path))[field] == value
        assert (await world.get(path))[field] != value


@pytest.mark.parametrize(
    ("venue", "path", "close"),
    [
        ("binance", "/binance/api/v3/klines?symbol=BTCUSDT&interval=1m", 4),
        ("coinbase_exchange", "/coinbase_exchange/products/BTC-USD/candles?granularity=60", 4),
    ],
)
async def test_a_row_of_candles_is_spoiled_like_an_object(world: World, venue: str, path: str, close: int) -> None:
    good = await world.get(path)
    for fault, place, value in (("null_price", close, None), ("year_one", 0, 0)):
        world.order(venue=venue, channel="rest", fault=fault)
        rows = await world.get(path)
        assert rows[:-1] == good
        assert rows[-1][place] == value
    world.order(venue=venue, channel="rest", fault="null_price", replace=True)
    assert [row[close] for row in await world.get(path)] == [None] + [row[close] for row in good[1:]]


@pytest.mark.parametrize(
    ("kind", "able"),
    [
        ("http_418", {"binance"}),
        ("page_hole", FEEDS),
        ("currency_switch", set(AGGREGATORS)),
        *((kind, FEEDS) for kind in ("drop", "reorder", "late", "vanish", "id_reset", "half_frame")),
        *((kind, set(VENUES)) for kind in ("http_429", "http_5xx", "slow_body", "empty_array", "malformed", "stall")),
    ],
)
def test_what_a_venue_cannot_do_is_said_in_a_sentence(kind: str, able: set[str]) -> None:
    for venue in VENUES:
        sentence = impossible(FaultKind(kind), venue)
        assert (sentence == "") is (venue in able)
        assert not sentence or (kind in sentence and venue in sentence)


@pytest.mark.parametrize("name", ["coingecko:http_418", "binance:currency_switch", "mars:http_429", "coincap:drop"])
def test_a_probability_of_what_cannot_be_stops_at_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name.split(":")[0]):
        configuration.load(faults={name: 0.5})


def test_a_short_page_has_no_middle_and_an_empty_one_nothing_to_spoil() -> None:
    shape = ItemShape(price="price", is_trade=True)
    assert FaultKind.PAGE_HOLE not in kinds_of(Page([b"{}"] * 2, shape), "binance")
    assert FaultKind.PAGE_HOLE in kinds_of(Page([b"{}"] * 3, shape), "binance")
    assert kinds_of(Page([], shape), "binance") == frozenset()


def test_a_page_is_hit_by_chance_too() -> None:
    box = FaultBox({"coincap:null_price": 0.5}, 1)
    kinds = frozenset({FaultKind.NULL_PRICE})
    hits = sum(box.take("coincap", kinds, 0) == [FaultRequest(fault=FaultKind.NULL_PRICE)] for _ in range(400))
    assert 150 < hits < 250


def test_a_price_without_a_market_cap_is_null_in_the_truth_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    price = TruthPrice("coingecko", "bitcoin", "usd", "63519", "1270000000000", 1_785_542_400_000_000)
    assert told_price_line(price) == (
        b'{"source":"coingecko","asset_id":"bitcoin","vs_currency":"usd","price":"63519",'
        b'"market_cap":"1270000000000","last_updated_us":1785542400000000}\n'
    )
    file = TruthFile(tmp_path / "prices.ndjson")
    file.append(told_price_line(TruthPrice("binance", "BTCUSDT", "usdt", "63519.00000000", None, 1)))
    file.close()
    assert json.loads((tmp_path / "prices.ndjson").read_text())["market_cap"] is None
