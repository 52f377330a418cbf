"""Input that is odd or wrong: a defined result, or a KernelError that names the trade and says what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest

from marketflow.contracts.columns import Type
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.trades.kernel import trade_features
from tests.unit.features.trade_checks import ALL, computed
from tests.unit.features.trade_tapes import Tape, Trade, made, quote_frame, trade_frame

BITCOIN = made("bitcoin", 41, 620)
NAMED = BITCOIN.trades[300]


def with_trade(**changes: object) -> list[Trade]:
    """The tape with its 301st trade changed."""
    trades = list(BITCOIN.trades)
    trades[300] = replace(NAMED, **changes)  # type: ignore[arg-type]
    return trades


def refused(trades: pl.DataFrame, *words: str) -> None:
    """A KernelError that names the 301st trade and has these words."""
    with pytest.raises(KernelError) as error:
        trade_features(trades, BITCOIN.quote_frame)
    for word in (str(NAMED.trade_id), *words):
        assert re.search(word, str(error.value)), (word, str(error.value))


@pytest.mark.parametrize(("column", "wrong"), [("price", "0"), ("size", "0"), ("price", "-1"), ("size", "-0.00000001")])
def test_an_amount_that_is_not_above_zero_is_refused_by_name(column: str, wrong: str) -> None:
    refused(trade_frame(with_trade(**{column: Decimal(wrong)})), column, "above zero", f"{float(wrong):g}")


@pytest.mark.parametrize("column", ["price", "size"])
def test_an_amount_too_large_to_sum_is_refused_by_name(column: str) -> None:
    refused(trade_frame(with_trade(**{column: Decimal("100000000000000001")})), column, "at most 1e\\+17")


@pytest.mark.parametrize("column", ["price", "size", "taker_side", "event_ts"])
def test_a_null_is_refused_by_name(column: str) -> None:
    here = pl.col("trade_id") == NAMED.trade_id
    refused(BITCOIN.trade_frame.with_columns(pl.when(~here).then(pl.col(column)).alias(column)), column, "null")


def test_a_null_id_venue_or_product_is_refused() -> None:
    for column in ("trade_id", "venue", "product_id"):
        kept = pl.col("event_ts") != pl.lit(NAMED.event_us).cast(pl.Datetime("us", "UTC"))
        wrong = BITCOIN.trade_frame.with_columns(pl.when(kept).then(pl.col(column)).alias(column))
        with pytest.raises(KernelError, match=f"{column} is null"):
            trade_features(wrong)


@pytest.mark.parametrize("side", ["unknown", "BUY", ""])
def test_a_side_that_is_neither_buy_nor_sell_is_refused_by_name(side: str) -> None:
    refused(trade_frame(with_trade(taker_side=side)), "taker_side", "buy or sell", repr(side))


@pytest.mark.parametrize("changes", [{}, {"price": Decimal(1)}, {"size": Decimal(2)}, {"taker_side": "sell"}])
def test_an_id_that_occurs_twice_alike_or_in_conflict_is_refused_by_name(changes: dict[str, object]) -> None:
    doubled = [*with_trade(), replace(NAMED, **changes)]  # type: ignore[arg-type]
    refused(trade_frame(doubled), "occurs twice")


def test_two_products_or_two_venues_are_refused_by_name() -> None:
    for column, other in (("product_id", "ETH-USD"), ("venue", "binance")):
        both = pl.concat(
            [BITCOIN.trade_frame.head(20), BITCOIN.trade_frame[20:40].with_columns(pl.lit(other).alias(column))]
        )
        with pytest.raises(KernelError, match=f"one product.*{other}"):
            trade_features(both)


def test_a_venue_that_does_not_number_its_trades_is_refused_by_name() -> None:
    polled = BITCOIN.trade_frame.with_columns(venue=pl.lit("ccxt_kraken"))
    with pytest.raises(KernelError, match="ccxt_kraken does not number its trades"):
        trade_features(polled)


def test_a_frame_without_a_column_is_an_error_that_names_it() -> None:
    with pytest.raises((KernelError, pl.exceptions.ColumnNotFoundError), match="taker_side"):
        trade_features(BITCOIN.trade_frame.drop("taker_side"))
    with pytest.raises((KernelError, pl.exceptions.ColumnNotFoundError), match="best_ask"):
        trade_features(BITCOIN.trade_frame, BITCOIN.quote_frame.drop("best_ask"))


def test_no_trades_give_no_rows_of_the_same_columns_and_types() -> None:
    """So that pieces can be put together and an empty hour written, whichever of them is empty."""
    for quotes in (None, BITCOIN.quote_frame):
        empty = trade_features(BITCOIN.trade_frame.clear(), quotes)
        assert empty.height == 0
        assert empty.schema == computed(BITCOIN).schema


def test_every_row_has_its_key_and_its_own_price_size_and_side() -> None:
    """As the kernel's docstring says: the key, price, size and taker_side, every feature, history and is_final."""
    columns = computed(BITCOIN).columns
    assert [*columns[:4], *columns[-3:]] == [
        *("venue", "product_id", "trade_id", "event_ts"),
        *("quote_is_later", "history", "is_final"),
    ]
    assert {"price", "size", "taker_side"} <= set(columns)


def test_every_trade_gives_one_row_and_columns_have_the_catalogues_types() -> None:
    for length in (1, 2, 9, 10, 11, 499, 500, 501, 620):
        frame = computed(Tape(BITCOIN.trades[:length], BITCOIN.quotes))
        assert frame["trade_id"].to_list() == [trade.trade_id for trade in BITCOIN.trades[:length]]
        assert {one.name: frame.schema[one.name] for one in ALL} == {
            one.name: frames.POLARS_TYPES[one.type] for one in ALL
        }


def test_one_trade_has_what_needs_no_other_and_nulls() -> None:
    row = computed(Tape(BITCOIN.trades[:1])).row(0, named=True)
    known = {one.name for one in ALL if row[one.name] is not None}
    assert known == {
        *("is_buy", "aggressor_run_length", "hour_of_day", "day_of_week", "is_weekend"),
        *("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"),
    }
    assert (row["history"], row["is_final"], row["aggressor_run_length"]) == (0, False, 1)


def test_fewer_trades_than_a_window_give_null_and_never_zero() -> None:
    frame = computed(Tape(BITCOIN.trades[:499]))
    assert frame["aggressor_run_length"].null_count() == 0  # counted from the first trade that is known
    for one in ALL:
        if one.name != "aggressor_run_length":
            values = frame[one.name].head(one.lookback)
            assert values.null_count() == len(values), one.name


@pytest.mark.parametrize("quotes", [None, BITCOIN.quote_frame.clear(), quote_frame([])])
def test_without_quotes_everything_but_quotes_is_the_same(quotes: pl.DataFrame | None) -> None:
    frame, whole = trade_features(BITCOIN.trade_frame, quotes), computed(BITCOIN)
    of_quotes = {one.name for one in ALL if one.group == "quotes"}
    assert all(frame[name].null_count() == frame.height for name in of_quotes)
    assert frame.drop(of_quotes).equals(whole.drop(of_quotes))
    assert frame.schema == whole.schema


def test_quotes_only_later_than_every_trade_are_as_none() -> None:
    latest = max(trade.event_us for trade in BITCOIN.trades)
    later = tuple(
        replace(one, event_us=latest + 1 + i, sequence=10**12 + i) for i, one in enumerate(BITCOIN.quotes[:50])
    )
    assert computed(replace(BITCOIN, quotes=later)).equals(trade_features(BITCOIN.trade_frame))


def test_columns_that_silver_has_and_features_do_not_read_change_nothing() -> None:
    noisy = BITCOIN.trade_frame.with_columns(
        *(pl.lit(1.5).alias(name) for name in ("notional", "change", "moved", "gap", "log_return", "event_us", "row"))
    )
    assert trade_features(noisy, BITCOIN.quote_frame).equals(computed(BITCOIN))


def test_the_frames_that_came_in_are_not_changed() -> None:
    trades, quotes = BITCOIN.trade_frame, BITCOIN.quote_frame
    trade_features(trades, quotes)
    assert trades.equals(BITCOIN.trade_frame)
    assert quotes.equals(BITCOIN.quote_frame)


def test_targets_and_features_are_told_apart_by_name_and_by_horizon() -> None:
    assert {one.name for one in ALL if one.reads_future} == {
        f"{what}_{horizon}" for what in ("future_price", "target_return", "target_direction") for horizon in (10, 50)
    }
    assert all(one.horizon in (10, 50) for one in ALL if one.reads_future)
    assert all(one.lookback <= 500 for one in ALL)
    assert {one.type for one in ALL} == {Type.DOUBLE, Type.INTEGER, Type.BOOLEAN, Type.STRING}
