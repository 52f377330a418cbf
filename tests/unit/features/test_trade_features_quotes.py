"""The quote before a trade, the targets after it, and when a row is final."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.errors import KernelError
from marketflow.features.trades.catalogue import CATALOGUE, TARGETS
from marketflow.features.trades.kernel import trade_features
from marketflow.features.trades.tape import QUOTES_BACK
from marketflow.features.trades.tape import tape as prepared
from tests.unit.features.trade_checks import ALL, changed_by_cutting_the_future, computed
from tests.unit.features.trade_tapes import (
    START_US,
    Quote,
    Tape,
    Trade,
    made,
    quote_frame,
    short_tapes,
    tapes,
    trade_frame,
)

SECOND_US = 1_000_000
OF_QUOTES = tuple(one for one in ALL if one.group == "quotes")
ASKED = [CATALOGUE[name] for name in ("best_bid", "best_ask", "quote_age_ms", "quote_join")]


def trade(at_s: float = 0, sequence: int | None = None, *, trade_id: int = 1, price: str = "100") -> Trade:
    return Trade(trade_id, Decimal(price), Decimal(1), "buy", START_US + round(at_s * SECOND_US), sequence)


def quote(at_s: float, bid: str, sequence: int | None = None) -> Quote:
    return Quote(START_US + round(at_s * SECOND_US), Decimal(bid), Decimal(bid) + 1, Decimal(3), Decimal(1), sequence)


def first_row(one: Trade, *quotes: Quote) -> dict[str, Any]:
    return computed(Tape((one,), quotes), OF_QUOTES).row(0, named=True)


def found(one: Trade, *quotes: Quote) -> tuple[float | None, float | None, str | None]:
    row = first_row(one, *quotes)
    return row["best_bid"], row["quote_age_ms"], row["quote_join"]


NOTHING = (None, None, None)


def test_the_quote_of_the_trades_own_sequence_shows_the_book_after_it_and_is_not_taken() -> None:
    assert found(trade(0, 10), quote(-1, "99", 9), quote(0, "98", 10)) == (99, 1000, "sequence")
    assert found(trade(0, 10), quote(0, "98", 10)) == NOTHING


def test_the_highest_sequence_below_the_trades_own_is_taken_whatever_the_order_of_times() -> None:
    assert found(trade(0, 10), quote(-1, "97", 8), quote(-2, "99", 9), quote(-0.5, "95", 11)) == (99, 2000, "sequence")


def test_of_quotes_of_one_time_the_highest_sequence_is_taken_whatever_their_order() -> None:
    """A venue that tells milliseconds has many of one time, and its trades may have no sequence."""
    quotes = [quote(-1, str(90 + number), number) for number in range(40)]
    assert found(trade(0), *quotes) == found(trade(0), *reversed(quotes)) == (129, 1000, "event_ts")
    assert found(trade(0), quotes[1], quotes[0], quote(-1, "70")) == (91, 1000, "event_ts")


def test_a_quote_of_the_same_time_and_a_lower_sequence_is_before_the_trade() -> None:
    assert found(trade(0, 10), quote(0, "99", 9)) == (99, 0, "sequence")


def test_without_a_sequence_on_either_side_a_quote_of_the_same_time_is_not_before_the_trade() -> None:
    for one in (trade(0, None), trade(0, 10)):
        assert found(one, quote(0, "98"), quote(-0.000001, "99")) == (99, 0.001, "event_ts")
        assert found(one, quote(0, "98")) == NOTHING


def test_a_trade_without_sequence_is_joined_by_time_to_quotes_that_have_one() -> None:
    assert found(trade(0, None), quote(-1, "99", 12), quote(0.5, "98", 9)) == (99, 1000, "event_ts")


def test_a_quote_may_be_five_seconds_old_and_not_a_microsecond_more() -> None:
    for own, of_quote in ((10, 9), (None, None)):
        assert found(trade(0, own), quote(-5, "99", of_quote))[:2] == (99, 5000)
        assert found(trade(0, own), quote(-5.000001, "99", of_quote)) == NOTHING


def test_a_quote_of_a_later_time_is_null_though_an_earlier_one_exists_and_is_counted() -> None:
    late = (quote(-1, "98", 8), quote(0.000001, "99", 9))
    assert found(trade(0, 10), *late) == NOTHING
    assert prepared(trade_frame([trade(0, 10)]), quote_frame(late))["quote_is_later"].to_list() == [True]


@given(st.one_of(short_tapes(), tapes(1, 300)))
@settings(max_examples=40, deadline=None)
def test_quotes_ages_lie_between_zero_and_five_seconds_and_all_quote_features_are_null_together(tape: Tape) -> None:
    frame = computed(tape, OF_QUOTES)
    ages = frame["quote_age_ms"].drop_nulls()
    assert ages.is_between(0, 5000).all()
    nulls = frame["quote_age_ms"].is_null()
    for name in ("best_bid", "best_ask", "mid_price", "bid_ask_spread", "quote_join"):
        assert frame[name].is_null().equals(nulls), name
    joined = frame["quote_join"].drop_nulls()
    assert (ages.filter(joined == "event_ts") > 0).all()


@given(short_tapes(), st.data())
@settings(max_examples=40, deadline=None)
def test_quotes_that_are_not_strictly_before_a_trade_could_as_well_not_exist(tape: Tape, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(tape.trades) - 1), label="row")
    own = tape.trades[row]
    by_sequence = own.sequence is not None

    def is_before(one: Quote) -> bool:
        return one.sequence < own.sequence if by_sequence else one.event_us < own.event_us

    earlier = tuple(one for one in tape.quotes if is_before(one))
    whole, kept = computed(tape, OF_QUOTES)[row], computed(replace(tape, quotes=earlier), OF_QUOTES)[row]
    assert whole.select(one.name for one in OF_QUOTES).equals(kept.select(one.name for one in OF_QUOTES))


def test_sequences_that_begin_later_do_not_take_the_quotes_of_earlier_trades_away() -> None:
    """A venue that starts to number its quotes: silver's sequence is null in some of one product's quotes.

    The first trade has one quote before it, by time, since that quote has no sequence. A later one changes nothing.
    """
    trades = (trade(0, 10, trade_id=1), trade(3, 20, trade_id=2))
    tape = Tape(trades, (quote(-1, "99", None), quote(2, "98", 19)))
    assert computed(Tape(trades[:1], tape.quotes[:1]), ASKED)["quote_join"][0] == "event_ts"
    assert changed_by_cutting_the_future(tape, 1, ASKED) == []


def test_a_quote_from_before_what_quotes_must_reach_changes_nothing() -> None:
    """Five seconds and, since a venue's times may run against its sequences, the minute that they may do so by."""
    one, near = trade(0, 10), quote(-4, "98", 8)
    reach_s = QUOTES_BACK.total_seconds()
    assert found(one, near, quote(-reach_s - 1, "99", 7)) == found(one, near) == (98.0, 4000.0, "sequence")
    # within that reach the last by sequence counts, and it is too old
    assert found(one, near, quote(-6, "99", 9)) == (None, None, None)


def test_a_crossed_book_has_a_negative_spread_and_a_locked_one_none() -> None:
    crossed = Quote(START_US - 1, Decimal(101), Decimal(99), Decimal(3), Decimal(1))
    row = first_row(trade(), crossed)
    assert (row["bid_ask_spread"], row["spread_pct"], row["spread_bps"]) == (-2, -2, -200)
    assert (row["mid_price"], row["microprice"], row["book_imbalance"]) == (100, 99.5, 0.5)
    locked = first_row(trade(), replace(crossed, best_bid=Decimal(100), best_ask=Decimal(100)))
    assert (locked["bid_ask_spread"], locked["spread_bps"], locked["effective_spread_bps"]) == (0, 0, 0)


@pytest.mark.parametrize("sizes", [(None, None), (None, Decimal(1)), (Decimal(1), None), (Decimal(0), Decimal(0))])
def test_without_sizes_only_what_weighs_by_them_is_null(sizes: Sequence[Decimal | None]) -> None:
    row = first_row(trade(), Quote(START_US - 1, Decimal(99), Decimal(101), *sizes))
    assert {one.name for one in OF_QUOTES if row[one.name] is None} == {"microprice", "book_imbalance"}


def test_a_bid_and_an_ask_of_zero_give_nulls_where_they_divide() -> None:
    row = first_row(trade(), Quote(START_US - 1, Decimal(0), Decimal(0), Decimal(1), Decimal(1)))
    nulls = {one.name for one in OF_QUOTES if row[one.name] is None}
    assert nulls == {"spread_pct", "spread_bps", "price_vs_bid", "price_vs_ask", "effective_spread_bps"}


def test_a_takers_price_worse_than_the_middle_costs_and_a_better_one_pays() -> None:
    book = Quote(START_US - 1, Decimal(99), Decimal(101))
    paid = {
        (side, price): first_row(replace(trade(price=price), taker_side=side), book)["effective_spread_bps"]
        for side, price in (("buy", "101"), ("sell", "99"), ("buy", "99"), ("sell", "101"))
    }
    assert list(paid.values()) == [200, 200, -200, -200]


def test_quotes_of_another_product_or_venue_are_not_looked_at() -> None:
    other = quote_frame([quote(-1, "99", 9)])
    trades = trade_frame([trade(0, 10)])
    for change in ({"product_id": "ETH-USD"}, {"venue": "binance"}):
        column, value = next(iter(change.items()))
        foreign = other.with_columns(pl.lit(value).alias(column))
        assert trade_features(trades, foreign)["best_bid"].to_list() == [None]


def test_quotes_too_large_to_be_summed_are_refused() -> None:
    """Decimal(38,18) holds 10^20 less a little; the sum of two such does not fit 128 bits of 10^-18."""
    large = Decimal("99999999999999999999.000000000000000001")
    with pytest.raises(KernelError, match=r"a quote of .* has an amount above 1e\+17"):
        first_row(trade(), Quote(START_US - 1, large, large, large, large))


# targets


@given(st.lists(st.booleans(), min_size=60, max_size=140), st.data())
@settings(max_examples=40, deadline=None)
def test_a_target_never_reaches_across_a_hole(holes: list[bool], data: st.DataObject) -> None:
    """Ids jump where the list says so, and seldom elsewhere: sparse holes are drawn too."""
    sparse = data.draw(st.sampled_from([1, 7, 30]), label="one hole of so many")
    ids = [1]
    for i, is_hole in enumerate(holes):
        ids.append(ids[-1] + (2 if is_hole and i % sparse == 0 else 1))
    trades = [trade(i, trade_id=trade_id, price=str(100 + i % 7)) for i, trade_id in enumerate(ids)]
    frame = computed(Tape(tuple(trades)), TARGETS)
    for horizon in (10, 50):
        for row, value in enumerate(frame[f"future_price_{horizon}"]):
            is_known = row + horizon < len(ids) and ids[row + horizon] - ids[row] == horizon
            assert value == (float(trades[row + horizon].price) if is_known else None), (horizon, row)
        known = frame[f"future_price_{horizon}"].is_not_null()
        assert frame[f"target_return_{horizon}"].is_not_null().equals(known)
        moved = (frame[f"target_return_{horizon}"] != 0).fill_null(False)
        assert frame[f"target_direction_{horizon}"].is_not_null().equals(moved & known)


def test_a_hole_before_the_trade_itself_does_not_touch_its_targets() -> None:
    trades = [trade(i, trade_id=i if i < 20 else i + 5, price=str(100 + i)) for i in range(1, 41)]
    frame = computed(Tape(tuple(trades)), TARGETS)
    # the hole lies before the 20th trade: the 10th to the 19th would have to look across it
    assert frame["future_price_10"].to_list()[8:21] == [119.0, *[None] * 10, 130.0, 131.0]


@given(tapes(1, 200))
@settings(max_examples=20, deadline=None)
def test_a_row_is_final_where_fifty_later_trades_exist_and_history_counts_those_before(tape: Tape) -> None:
    frame, count = computed(tape, []), len(tape.trades)
    assert frame["is_final"].to_list() == [row + 50 <= count - 1 for row in range(count)]
    assert frame["history"].to_list() == [min(row, 500) for row in range(count)]


def test_history_stops_at_500() -> None:
    assert computed(made("bitcoin", 1, 640), [])["history"].to_list() == [min(row, 500) for row in range(640)]


def test_a_healed_hole_gives_back_what_it_took() -> None:
    whole = made("long_runs", 31, 640)
    broken = replace(whole, trades=whole.trades[:560] + whole.trades[561:])
    names = ("gap_before", "gaps_in_window_500", "future_price_10", "target_direction_50")
    holed, healed = (computed(one, [CATALOGUE[name] for name in names]) for one in (broken, whole))
    assert holed["gap_before"].to_list()[560] is True
    assert holed["gaps_in_window_500"].to_list()[559:562] == [0, 1, 1]
    assert holed["future_price_10"].is_null().to_list()[548:562] == [False] * 2 + [True] * 10 + [False] * 2
    assert not healed["gap_before"].any()
    assert healed["future_price_10"].null_count() == 10


def test_of_quotes_of_one_time_the_one_of_the_highest_sequence_is_taken_in_whatever_order_they_come() -> None:
    """A healed trade has no sequence; quotes of trades that were told at once have one time."""
    known = [quote(-1, "97", 7), quote(-1, "98", 8), quote(-1, "99", 9)]
    for order in permutations(known):
        assert found(trade(0), *order) == (99, 1000, "event_ts")


@pytest.mark.parametrize("market", ["bitcoin", "trades_partly_without_sequence", "late_and_crossed_quotes"])
def test_the_order_in_which_quotes_come_changes_nothing(market: str) -> None:
    tape = made(market, 1, 300)
    shuffled = random.Random(4).sample(tape.quotes, len(tape.quotes))
    assert computed(tape, OF_QUOTES).equals(computed(replace(tape, quotes=tuple(shuffled)), OF_QUOTES))
