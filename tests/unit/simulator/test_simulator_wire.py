"""What is sent has the captures' shape: field order, number style, types."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.simulator import coinbase_wire, coingecko_wire, tape, universe
from marketflow.simulator.assets import AssetMarket, price_text
from marketflow.simulator.feed_messages import Batch, WireMessage, frame, half_of_first
from marketflow.simulator.listings import listing
from marketflow.simulator.market import Heartbeat, Market, ProductMarket, Trade
from marketflow.simulator.texts import fixed, rfc3339_us, trimmed

START_US = 1_785_542_400_000_000
CAPTURE = Path(tape.__file__).parent / "exchange-matches-btc-eth-2026-07-07.filtered.ndjson"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}")
# The ticker of the exchange since 2022; captures that may be carried have none.
TICKER_FIELDS = [
    "type",
    "sequence",
    "product_id",
    "price",
    "open_24h",
    "volume_24h",
    "low_24h",
    "high_24h",
    "volume_30d",
    "best_bid",
    "best_bid_size",
    "best_ask",
    "best_ask_size",
    "side",
    "time",
    "trade_id",
    "last_size",
]
# Each of the 26 keys of a captured page of ten coins with the JSON types seen there and in two older pages.
COIN_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "symbol": (str,),
    "name": (str,),
    "image": (str,),
    "current_price": (int, float),
    "market_cap": (int,),
    "market_cap_rank": (int,),
    "fully_diluted_valuation": (int, type(None)),
    "total_volume": (int,),
    "high_24h": (int, float),
    "low_24h": (int, float),
    "price_change_24h": (float,),
    "price_change_percentage_24h": (float,),
    "market_cap_change_24h": (int, float),
    "market_cap_change_percentage_24h": (float,),
    "circulating_supply": (float,),
    "total_supply": (float, type(None)),
    "max_supply": (float, type(None)),
    "ath": (int, float),
    "ath_change_percentage": (float,),
    "ath_date": (str,),
    "atl": (float,),
    "atl_change_percentage": (float,),
    "atl_date": (str,),
    "roi": (dict, type(None)),
    "last_updated": (str,),
}


def captured(message_type: str) -> dict[str, object]:
    lines = map(json.loads, CAPTURE.read_text().splitlines())
    return next(message for message in lines if message["type"] == message_type)


def events() -> list[Trade | Heartbeat]:
    market = Market({"BTC-USD": ProductMarket(listing("BTC-USD"), seed=1, rate=50)})
    market.start(START_US)
    return market.step(START_US + 3_000_000)


def assert_same_shape(ours: bytes, theirs: dict[str, object]) -> None:
    message = json.loads(ours)
    assert list(message) == list(theirs)
    assert [type(value) for value in message.values()] == [type(value) for value in theirs.values()]
    assert ours == json.dumps(message, separators=(",", ":")).encode(), "no blanks, as the exchange sends"


def test_feed_messages_have_the_captured_fields_in_the_captured_order() -> None:
    trade = next(event for event in events() if isinstance(event, Trade))
    beat = next(event for event in events() if isinstance(event, Heartbeat))
    assert_same_shape(coinbase_wire.match(trade, 1), captured("match"))
    assert_same_shape(coinbase_wire.match(trade, 1, "last_match"), captured("last_match"))
    assert_same_shape(coinbase_wire.heartbeat(beat), captured("heartbeat"))
    assert_same_shape(coinbase_wire.subscriptions({"matches": ["BTC-USD"]}), captured("subscriptions"))
    ticker = json.loads(coinbase_wire.ticker(trade))
    assert list(ticker) == TICKER_FIELDS
    assert {name for name, value in ticker.items() if isinstance(value, int)} == {"sequence", "trade_id"}


def test_order_ids_are_uuids_that_follow_from_the_trade() -> None:
    trades = [event for event in events() if isinstance(event, Trade)]
    ids = [json.loads(coinbase_wire.match(trade, 1)) for trade in trades]
    assert all(UUID.fullmatch(match[name]) for match in ids for name in ("maker_order_id", "taker_order_id"))
    assert len({match["maker_order_id"] for match in ids}) == len(trades)
    orders = sum(trade.ends_order for trade in trades)
    assert len({match["taker_order_id"] for match in ids}) == orders
    assert [json.loads(coinbase_wire.match(trade, 1)) for trade in trades] == ids
    assert json.loads(coinbase_wire.match(trades[0], 2)) != ids[0]


def test_a_taker_order_has_one_ticker_beside_its_last_match() -> None:
    feed = [json.loads(message.payload) for message in coinbase_wire.messages(events(), 1)]
    trades = [event for event in events() if isinstance(event, Trade)]
    tickers = [message for message in feed if message["type"] == "ticker"]
    assert [ticker["sequence"] for ticker in tickers] == [trade.sequence for trade in trades if trade.ends_order]
    places = {message["sequence"]: place for place, message in enumerate(feed) if message["type"] == "match"}
    beside = [places[m["sequence"]] - place for place, m in enumerate(feed) if m["type"] == "ticker"]
    assert set(beside) == {-1, 1}, "the exchange sends it now before, now after the match"


@given(st.integers(0, 10**24), st.integers(1, 8))
def test_amounts_are_exact_decimals(units: int, decimals: int) -> None:
    exact = Decimal(units) / 10**decimals if units < 10**20 else None
    if exact is not None:
        assert Decimal(fixed(units, decimals)) == exact
        assert Decimal(trimmed(units, decimals)) == exact
    assert len(fixed(units, decimals).split(".")[1]) == decimals
    assert not re.search(r"\.\d*0$|\.$", trimmed(units, decimals))


def test_times_have_microseconds_and_z() -> None:
    assert rfc3339_us(1_785_542_400_000_001) == "2026-08-01T00:00:00.000001Z"


@given(st.one_of(st.binary(max_size=300), st.just(b"x" * 65_535), st.just(b"x" * 65_536)))
def test_a_frame_is_a_whole_unmasked_text_frame(payload: bytes) -> None:
    framed = frame(payload)
    assert framed[0] == 0x81
    if framed[1] < 126:
        header, length = 2, framed[1]
    elif framed[1] == 126:
        header, length = 4, int.from_bytes(framed[2:4], "big")
    else:
        header, length = 10, int.from_bytes(framed[2:10], "big")
    assert (length, framed[header:]) == (len(payload), payload)


@pytest.mark.parametrize("length", [10, 125, 126, 65_535, 65_536, 200_000])
def test_half_a_frame_is_never_a_whole_one_however_many_follow(length: int) -> None:
    first = frame(b"x" * length)
    for following in (b"", frame(b"y" * length), frame(b"y") * 100):
        half = half_of_first(first + following)
        assert half == first[: len(half)]
        assert abs(len(half) - len(first) / 2) < 1


def test_a_batch_is_framed_once_for_each_form_and_joined_once_for_each_set_of_streams() -> None:
    messages = [WireMessage("matches", product, b"%d" % at) for at in range(5) for product in ("BTC-USD", "ETH-USD")]
    written: list[bytes] = []

    def write(message: WireMessage) -> bytes:
        written.append(message.payload)
        return message.payload

    batch = Batch(messages)
    both, one = frozenset({("matches", "BTC-USD"), ("matches", "ETH-USD")}), frozenset({("matches", "ETH-USD")})
    assert batch.joined(both, None, write) == (b"".join(frame(m.payload) for m in messages), 10)
    assert batch.joined(one, None, write) == (b"".join(frame(b"%d" % at) for at in range(5)), 5)
    assert batch.joined(both, None, write)[0] is batch.joined(both, None, write)[0]
    assert written == [m.payload for m in messages]
    batch.joined(one, "another form", write)
    assert len(written) == 20


def quoted(currencies: tuple[str, ...] = ("usd",), mid: float | None = 63_519.285) -> AssetMarket:
    assets = AssetMarket(
        universe.load(),
        currencies=currencies,
        seed=1,
        mid_of=lambda asset_id: mid if asset_id == "bitcoin" else None,
        last={},
    )
    assets.start(START_US)
    assets.publish(assets.advance(START_US))
    return assets


def test_every_coin_has_the_26_captured_keys_with_the_captured_types() -> None:
    coins = [json.loads(coingecko_wire.item(quotation)) for quotation in quoted().published.values()]
    assert len(coins) >= 250
    for coin in coins:
        assert list(coin) == list(COIN_TYPES)
        wrong = {name: value for name, value in coin.items() if type(value) not in COIN_TYPES[name]}
        assert wrong == {}
        assert coin["low_24h"] <= coin["current_price"] <= coin["high_24h"] <= coin["ath"]
        assert coin["atl"] <= coin["low_24h"]
    nulls = {name for coin in coins for name, value in coin.items() if value is None}
    assert nulls == {"fully_diluted_valuation", "total_supply", "max_supply", "roi"}
    assert len({coin["symbol"] for coin in coins}) < len({coin["id"] for coin in coins}) == len(coins)


def test_prices_are_printed_as_the_aggregator_prints() -> None:
    printed = [price_text(value) for value in (63_519.285, 1774.934, 1.2349, 1.0, 0.99994123, 0.0000033812)]
    assert printed == ["63519", "1774.93", "1.235", "1.0", "0.999941", "3.3812e-06"]


def test_pages_are_cut_from_one_ranking() -> None:
    quotations = list(quoted().published.values())
    pages = coingecko_wire.Pages()
    cut = [
        json.loads(item)["id"]
        for page in (1, 2, 3)
        for item in pages.page(quotations, order="market_cap_desc", per_page=100, page=page)
    ]
    caps = {quotation.asset_id: int(quotation.market_cap) for quotation in quotations}
    assert cut == sorted(caps, key=lambda asset_id: -caps[asset_id])
    assert cut[:3] == ["bitcoin", "ethereum", "tether"]
