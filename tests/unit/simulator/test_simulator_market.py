"""The market's own laws: contiguous, repeatable, consistent with its book, the tape first."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator import tape
from marketflow.simulator.day import DayWindow
from marketflow.simulator.listings import listing
from marketflow.simulator.market import Heartbeat, LastTrade, Market, ProductMarket, Trade

START_US = 1_785_542_400_000_000
CAPTURE = Path(tape.__file__).parent / "exchange-matches-btc-eth-2026-07-07.filtered.ndjson"


def random_market(product_id: str = "BTC-USD", *, seed: int = 1, rate: float = 50.0) -> ProductMarket:
    product = ProductMarket(listing(product_id), seed=seed, rate=rate)
    product.start(START_US)
    return product


def seconds(product: ProductMarket, count: int) -> list[Trade]:
    return product.advance(START_US + count * 1_000_000)


@pytest.mark.parametrize("product_id", sorted(PRODUCTS))
def test_every_known_product_trades_contiguously_at_prices_of_its_book(product_id: str) -> None:
    trades = seconds(random_market(product_id), 60)
    assert [trade.trade_id for trade in trades] == list(
        range(trades[0].listing.first_trade_id, trades[0].listing.first_trade_id + len(trades))
    )
    assert min(min(trade.price, trade.size) for trade in trades) > 0
    for trade in trades:
        assert trade.quotes.bid < trade.quotes.ask
        assert trade.price <= trade.quotes.ask if trade.taker_side == "buy" else trade.price >= trade.quotes.bid


def test_a_taker_prints_on_the_far_side_of_the_book() -> None:
    product = random_market()
    for step in range(1, 2000):
        for trade in product.advance(START_US + step * 10_000):
            if not trade.ends_order:
                continue
            untouched = trade.quotes.ask if trade.taker_side == "sell" else trade.quotes.bid
            # the side that was not taken from is where it was, so the print lies across the middle from it
            assert (trade.price > untouched) == (trade.taker_side == "buy")


def test_a_sweep_shares_its_moment_and_walks_away_from_the_middle() -> None:
    trades = seconds(random_market(), 120)
    inside = [(first, second) for first, second in pairwise(trades) if not first.ends_order]
    assert len(inside) > 20
    for first, second in inside:
        assert first.event_us == second.event_us
        assert first.taker_side == second.taker_side
        assert second.price > first.price if first.taker_side == "buy" else second.price <= first.price
    between = [(first, second) for first, second in pairwise(trades) if first.ends_order]
    assert all(first.event_us < second.event_us for first, second in between)


def test_sequence_rises_and_jumps_over_other_orders() -> None:
    steps = [later.sequence - earlier.sequence for earlier, later in pairwise(seconds(random_market(), 60))]
    assert min(steps) >= 2
    assert mean(steps) > 20


def test_the_mean_rate_is_the_rate_asked_for() -> None:
    assert len(seconds(random_market(rate=50), 400)) == pytest.approx(20_000, rel=0.05)


def test_the_same_seed_makes_the_same_market_and_another_seed_another() -> None:
    assert seconds(random_market(seed=1), 10) == seconds(random_market(seed=1), 10)
    assert seconds(random_market(seed=1), 10) != seconds(random_market(seed=2), 10)


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_how_time_is_cut_into_steps_does_not_change_the_market(steps_us: list[int]) -> None:
    whole, cut = random_market(rate=5), random_market(rate=5)
    now_us, pieces = START_US, []
    for step_us in steps_us:
        now_us += step_us
        pieces += cut.advance(now_us)
    assert pieces == whole.advance(now_us)


def two_exchanges(*, rate: float = 5.0, usdt: float = 1.0) -> Market:
    """The same coin at two exchanges, the second's book drawn towards the first's."""
    dollar = ProductMarket(listing("BTC-USD"), seed=1, rate=rate)
    tether = listing("BTC-USDT")
    last = LastTrade(tether.first_trade_id, int(tether.start_price * usdt), START_US - 1, tether.first_sequence)
    market = Market(
        {"BTC-USD": dollar, "BTC-USDT": ProductMarket(tether, seed=1, rate=rate, last=last, follows=dollar)}
    )
    market.start(START_US)
    return market


@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_how_time_is_cut_into_steps_does_not_change_a_book_that_follows_another(steps_us: list[int]) -> None:
    whole, cut = two_exchanges().products, two_exchanges().products
    now_us, pieces = START_US, []
    for step_us in steps_us:
        now_us += step_us
        cut["BTC-USD"].advance(now_us)
        pieces += cut["BTC-USDT"].advance(now_us)
    whole["BTC-USD"].advance(now_us)
    assert pieces == whole["BTC-USDT"].advance(now_us)


@pytest.mark.parametrize("start", [1.0, 1.05])
def test_the_same_asset_costs_about_the_same_at_both_exchanges_and_soon_though_it_did_not(start: float) -> None:
    market = two_exchanges(usdt=start)
    rate = listing("BTC-USDT").start_price / listing("BTC-USD").start_price
    apart = []
    for second in range(1, 1200):
        market.step(START_US + second * 1_000_000)
        apart.append(abs(market.products["BTC-USDT"].mid / market.products["BTC-USD"].mid / rate - 1))
    assert apart[0] > 0.04 or start == 1.0
    assert max(apart[300:]) < 0.005
    assert 0.000_01 < mean(apart[300:]) < 0.001, "near, and yet a book of its own"


def test_a_book_that_begins_later_begins_where_the_one_that_it_follows_is() -> None:
    dollar = listing("BTC-USD")
    risen = LastTrade(dollar.first_trade_id, dollar.start_price * 2, START_US, dollar.first_sequence)
    followed = ProductMarket(dollar, seed=1, rate=5, last=risen)
    follower = ProductMarket(listing("BTC-USDT"), seed=1, rate=5, follows=followed)
    assert follower.mid == pytest.approx(listing("BTC-USDT").start_price * 2 / 100, rel=0.001)


def captured(product_id: str) -> list[dict[str, str]]:
    messages = [json.loads(line) for line in CAPTURE.read_text().splitlines()]
    return [m for m in messages if m["type"] == "match" and m["product_id"] == product_id]


@pytest.mark.parametrize(("product_id", "captured_trades"), [("BTC-USD", 344), ("ETH-USD", 91)])
def test_the_tape_comes_first_with_its_prices_sizes_sides_and_spacing(product_id: str, captured_trades: int) -> None:
    matches = captured(product_id)
    assert len(matches) == captured_trades
    product = ProductMarket(listing(product_id), seed=1, rate=3, tape=tape.load()[product_id])
    product.start(START_US)
    trades = seconds(product, 90)[:captured_trades]
    cents = Decimal("0.01")
    for trade, match in zip(trades, matches, strict=True):
        assert trade.price * cents == Decimal(match["price"])
        assert trade.size * Decimal("1e-8") == Decimal(match["size"])
        assert trade.taker_side == {"sell": "buy", "buy": "sell"}[match["side"]]
    own = [later.event_us - earlier.event_us for earlier, later in pairwise(trades)]
    theirs = [int(later["time"][20:26]) - int(earlier["time"][20:26]) for earlier, later in pairwise(matches)]
    assert [spacing % 1_000_000 for spacing in own] == [spacing % 1_000_000 for spacing in theirs]


def test_a_market_that_goes_on_takes_up_its_tape_where_it_stopped() -> None:
    whole = ProductMarket(listing("BTC-USD"), seed=1, rate=3, tape=tape.load()["BTC-USD"])
    whole.start(START_US)
    trades = seconds(whole, 30)
    stopped = trades[49]
    last = LastTrade(stopped.trade_id, stopped.price, stopped.event_us, stopped.sequence)
    resumed = ProductMarket(listing("BTC-USD"), seed=1, rate=3, tape=tape.load()["BTC-USD"], last=last)
    restart_us = stopped.event_us + 3_600_000_000
    resumed.start(restart_us)
    more = resumed.advance(restart_us + 20_000_000)
    assert more[0].trade_id == stopped.trade_id + 1
    assert more[0].event_us >= restart_us
    assert more[0].sequence > stopped.sequence
    assert [trade.price for trade in more[:30]] == [trade.price for trade in trades[50:80]]


def test_nothing_is_traded_for_the_time_of_a_pause() -> None:
    market = Market({"BTC-USD": random_market()})
    market.start(START_US)
    before = [event for event in market.step(START_US + 2_000_000) if isinstance(event, Trade)]
    market.paused = True
    quiet = market.step(START_US + 60_000_000)
    assert {type(event) for event in quiet} == {Heartbeat}
    market.start(START_US + 60_000_000)
    after = [event for event in market.step(START_US + 62_000_000) if isinstance(event, Trade)]
    assert after[0].trade_id == before[-1].trade_id + 1
    assert after[0].event_us > START_US + 60_000_000
    assert after[0].sequence > quiet[-1].sequence


def test_a_heartbeat_comes_each_second_after_the_trades_up_to_it() -> None:
    market = Market({product: random_market(product) for product in ("BTC-USD", "ETH-USD")})
    market.start(START_US)
    events = [event for tenth in range(56) for event in market.step(START_US + tenth * 100_000)]
    beats = [event for event in events if isinstance(event, Heartbeat)]
    assert [(beat.event_us - START_US) // 1_000_000 for beat in beats] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for position, beat in enumerate(events):
        if isinstance(beat, Heartbeat):
            own = [e for e in events if isinstance(e, Trade) and e.listing == beat.listing]
            assert beat.last_trade_id == max(e.trade_id for e in own if e.event_us <= beat.event_us)
            assert all(e not in events[position:] for e in own if e.event_us <= beat.event_us)


@given(
    st.lists(st.tuples(st.integers(0, 40 * 60), st.integers(1, 1000), st.integers(1, 1000)), min_size=1, max_size=60)
)
@settings(max_examples=50, deadline=None)
def test_the_rolling_day_equals_a_look_at_all_its_trades(steps: list[tuple[int, int, int]]) -> None:
    window, seen, now_s = DayWindow(), [], 1_785_542_400
    for step_s, price, size in steps:
        now_s += step_s
        seen.append((now_s, price, size))
        summary = window.add(now_s * 1_000_000, price, size)
        day = [entry for entry in seen if entry[0] // 60 > now_s // 60 - 1440]
        assert summary == (
            day[0][1],
            max(entry[1] for entry in day),
            min(entry[1] for entry in day),
            sum(entry[2] for entry in day),
        )
