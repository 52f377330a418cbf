"""Bars from trades: exact sums, empty intervals as rows, holes in the venue's ids made visible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import polars as pl

from marketflow.contracts.columns import MONEY_PRECISION, MONEY_SCALE
from marketflow.contracts.gold import BAR_INTERVALS_S, BARS
from marketflow.contracts.sources import numbers_each_trade
from marketflow.errors import KernelError
from marketflow.features import frames

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)
LARGEST_MONEY = Decimal("9" * MONEY_PRECISION).scaleb(-MONEY_SCALE, Context(prec=MONEY_PRECISION))
SMALLEST_MONEY = Decimal(1).scaleb(-MONEY_SCALE)
VWAP_CONTEXT = Context(prec=140, rounding=ROUND_HALF_EVEN)
"""notional / volume of two 38-digit numbers differs from a tie by at least 5e-57 or not at all; 140 digits see that."""


def floor(ts: datetime, interval: str) -> datetime:
    """Start of the interval that holds `ts`: epoch + ⌊(ts − epoch) / interval⌋ · interval, UTC.

    Never null; `interval` is a key of BAR_INTERVALS_S. Source: by definition.
    """
    step = _step(interval)
    return EPOCH + (ts - EPOCH) // step * step


def bars(
    trades: pl.DataFrame, *, interval: str, start: datetime, end: datetime, complete_through: datetime | None
) -> pl.DataFrame:
    """Bars of one (venue, product_id) whose open_ts lies in [start, end), sorted by open_ts.

    open, close = price of the lowest and highest trade_id with event_ts in [open_ts, open_ts + interval); high, low =
      highest and lowest price. Unit: quote currency. Null without a trade.
    volume = Σ size, buy_volume and sell_volume by taker_side (base currency); notional = Σ notional (quote currency);
      exact, zero without a trade. trade_count = their number.
    first_trade_id, last_trade_id = the lowest and the highest. Null without a trade.
    vwap = notional / volume, half-even to 18 places. Unit: quote currency. Null without a trade.
    has_gap = some hole touches the bar. A hole is two trades a, b, neighbours by trade_id, with b.trade_id >
      a.trade_id + 1; it touches where min(a, b event_ts) < bar's end and max(a, b event_ts) ≥ open_ts. True in every
      bar of a venue that does not number its trades one by one: that none is missing cannot be known.
    is_complete = open_ts + interval ≤ complete_through, and some trade has event_ts ≥ open_ts + interval; false where
      complete_through is None. Never null. The later trade's id is what tells whether one is missing before it: a feed
      that is down, or a trade on its way over the bar's end, leaves the last bar incomplete (docs/decisions/0007).

    An interval without a trade is a row with trade_count 0 if it lies between the earliest and the latest of `trades`;
    there are no rows before the one or after the other. Source: by definition.

    `trades` holds every trade with event_ts in [start, end), in any order, and with them the neighbour by trade_id on
    either side where it exists; more neighbours in a row do no harm.

    Raises:
        KernelError: trades of two products, a trade_id twice, a taker_side other than buy or sell, start or end not on
            the interval, or a sum of 10^20 and more, which Decimal(38,18) cannot hold.
    """
    step = _step(interval)
    for name, moment in (("start", start), ("end", end)):
        if floor(moment, interval) != moment:
            raise KernelError(f"{name} {moment} does not lie on an interval of {interval}")
    if trades.is_empty():
        return frames.empty(BARS)
    ordered = _ordered(trades)
    grid = _grid(ordered, interval, start, end)
    totals = _totals(ordered.filter(pl.col("event_ts").is_between(start, end, closed="left")), step)
    sums = ("volume", "notional", "buy_volume", "sell_volume")
    result = grid.join(totals, on="open_ts", how="left", maintain_order="left").with_columns(
        pl.col(sums).fill_null(pl.lit(Decimal(0), dtype=frames.MONEY)),
        pl.col("trade_count").fill_null(0),
        venue=pl.lit(ordered.item(0, "venue")),
        product_id=pl.lit(ordered.item(0, "product_id")),
        interval=pl.lit(interval),
        has_gap=_touched_by_holes(grid["open_ts"], ordered, step),
        is_complete=_complete(pl.col("open_ts") + step, ordered, complete_through),
    )
    return frames.conform(result.with_columns(vwap=_vwap(result["notional"], result["volume"])), BARS)


def folded(shorter: pl.DataFrame, interval: str) -> pl.DataFrame:
    """Bars of `interval` from the bars of one shorter interval that divides it, of any products.

    Each equals what `bars` makes of the trades themselves, where `shorter` holds every bar that lies in it: sums of
    sums, extremes of extremes; open is the open of the bar with the lowest first_trade_id and close the close of the
    one with the highest last_trade_id (an id may lie in the next bar, so time does not say it); has_gap where one has;
    is_complete where the bar that ends with it is. Sorted by venue, product_id, open_ts. Source: by definition.

    Raises:
        KernelError: an unknown interval, bars of several intervals or of one that does not divide it, or a sum of
            10^20 and more.
    """
    step = _step(interval)
    if shorter.is_empty():
        return frames.empty(BARS)
    lengths = [_step(name) for name in shorter["interval"].unique()]
    if len(lengths) > 1 or step % lengths[0]:
        raise KernelError(f"bars of {shorter['interval'].unique().to_list()} do not fold into {interval}")
    ends_with = pl.col("own_ts") + lengths[0] == pl.col("open_ts") + step
    sums = [pl.col(name).sum() for name in ("volume", "notional", "buy_volume", "sell_volume", "trade_count")]
    by_first, by_last = pl.col("first_trade_id"), pl.col("last_trade_id")
    result = (
        shorter.with_columns(own_ts="open_ts", open_ts=pl.col("open_ts").dt.truncate(f"{step // _SECOND}s"))
        .group_by("venue", "product_id", "open_ts")
        .agg(
            pl.col("open").filter(by_first == by_first.min()).first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").filter(by_last == by_last.max()).first(),
            *sums,
            by_first.min(),
            by_last.max(),
            pl.col("has_gap").any(),
            is_complete=(pl.col("is_complete") & ends_with).any(),
            volume_about=pl.col("volume").cast(pl.Float64).sum(),
            notional_about=pl.col("notional").cast(pl.Float64).sum(),
        )
        .sort("venue", "product_id", "open_ts")
        .with_columns(interval=pl.lit(interval))
    )
    _check_sums(result)
    return frames.conform(result.with_columns(vwap=_vwap(result["notional"], result["volume"])), BARS)


def _step(interval: str) -> timedelta:
    """The interval's length; a KernelError that names the known ones where it is none of them."""
    if interval not in BAR_INTERVALS_S:
        raise KernelError(f"unknown interval {interval!r}; known: {', '.join(BAR_INTERVALS_S)}")
    return timedelta(seconds=BAR_INTERVALS_S[interval])


def _complete(ends: pl.Expr, ordered: pl.DataFrame, complete_through: datetime | None) -> pl.Expr:
    """Whether silver covers a bar's end and a trade after it is known."""
    if complete_through is None:
        return pl.lit(False)
    return (ends <= complete_through) & (ends <= ordered["event_ts"].max())


def _ordered(trades: pl.DataFrame) -> pl.DataFrame:
    """By trade_id, of one product, each id once; times as the contract has them."""
    columns = ("venue", "product_id", "trade_id", "price", "size", "notional", "taker_side", "event_ts")
    ordered = trades.select(columns).with_columns(pl.col("event_ts").cast(frames.TIMESTAMP)).sort("trade_id")
    products = ordered.select("venue", "product_id").unique().sort("venue", "product_id")
    if products.height > 1:
        raise KernelError(f"bars are of one product, not of {products.rows()}")
    doubled = ordered.filter(pl.col("trade_id").diff() == 0)
    if doubled.height:
        raise KernelError(f"trade {products.row(0)} {doubled.item(0, 'trade_id')} occurs twice")
    return ordered


def _grid(ordered: pl.DataFrame, interval: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Every open_ts in [start, end) from the interval of the earliest trade to that of the latest."""
    earliest, latest = ordered.select(
        pl.col("event_ts").min().alias("earliest"), pl.col("event_ts").max().alias("latest")
    ).row(0)
    step = _step(interval)
    opens = pl.datetime_range(
        max(start, floor(earliest, interval)),
        min(end, floor(latest, interval) + step),
        step,
        closed="left",
        time_unit="us",
        eager=True,
    )
    return opens.alias("open_ts").cast(frames.TIMESTAMP).to_frame()


def _totals(inside: pl.DataFrame, step: timedelta) -> pl.DataFrame:
    """One row per interval that holds a trade: prices, exact sums, count."""
    bought, sold = pl.col("taker_side") == "buy", pl.col("taker_side") == "sell"
    totals = (
        inside.with_columns(open_ts=pl.col("event_ts").dt.truncate(f"{step // _SECOND}s"))
        .group_by("open_ts", maintain_order=True)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            first_trade_id=pl.col("trade_id").first(),
            last_trade_id=pl.col("trade_id").last(),
            volume=pl.col("size").sum(),
            notional=pl.col("notional").sum(),
            buy_volume=pl.col("size").filter(bought).sum(),
            sell_volume=pl.col("size").filter(sold).sum(),
            trade_count=pl.len().cast(pl.Int64),
            unsided=(~(bought | sold)).fill_null(True).sum(),
            # sums again in floating point, to see what a 128-bit sum would hide
            volume_about=pl.col("size").cast(pl.Float64).sum(),
            notional_about=pl.col("notional").cast(pl.Float64).sum(),
        )
    )
    _check_sums(totals)
    unsided = totals.filter(pl.col("unsided") > 0)
    if unsided.height:
        raise KernelError(f"a trade of the bar at {unsided.item(0, 'open_ts')} has a taker_side other than buy or sell")
    return totals


def _check_sums(totals: pl.DataFrame) -> None:
    """Polars adds decimals of a group as 128-bit integers and wraps in silence at 1.7e20: refuse from 1e20 on.

    Sizes and notionals are not negative, so a sum that the floating one puts below 1.5e20 never wrapped on its way.
    """
    largest = pl.lit(LARGEST_MONEY, dtype=frames.MONEY)
    for name, about in (("volume", "volume_about"), ("notional", "notional_about")):
        too_large = totals.filter((pl.col(about) > 1.5e20) | (pl.col(name) > largest))
        if too_large.height:
            raise KernelError(f"{name} of the bar at {too_large.item(0, 'open_ts')} does not fit Decimal(38,18)")


def _vwap(notionals: pl.Series, volumes: pl.Series) -> pl.Series:
    """Notional / volume, half-even to 18 places; null where the volume is zero."""
    values = [
        VWAP_CONTEXT.divide(notional, volume).quantize(SMALLEST_MONEY, context=VWAP_CONTEXT) if volume else None
        for notional, volume in zip(notionals, volumes, strict=True)
    ]
    return pl.Series("vwap", values, dtype=frames.MONEY)


def _touched_by_holes(opens: pl.Series, ordered: pl.DataFrame, step: timedelta) -> pl.Series:
    """For each bar whether a hole's neighbours' times span any moment of it, or could without being seen."""
    if not numbers_each_trade(ordered.item(0, "venue")):
        return pl.repeat(True, opens.len(), dtype=pl.Boolean, eager=True).alias("has_gap")
    before_ts = pl.col("event_ts").shift(1)
    holes = ordered.select(
        hole=pl.col("trade_id").diff() > 1,
        lowest=pl.min_horizontal("event_ts", before_ts).to_physical(),
        highest=pl.max_horizontal("event_ts", before_ts).to_physical(),
    ).filter("hole")
    width = step // MICROSECOND
    first_open = opens.to_physical()[0] if opens.len() else 0
    # bars are one step apart, so a hole touches a run of positions: +1 where it begins, −1 after its end
    first = np.clip((holes["lowest"].to_numpy() - first_open) // width, 0, opens.len())
    after_last = np.clip((holes["highest"].to_numpy() - first_open) // width + 1, 0, opens.len())
    change = np.zeros(opens.len() + 1, dtype=np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, after_last, -1)
    return pl.Series("has_gap", np.cumsum(change[:-1]) > 0)
