"""How far back (or ahead) a number of trades reaches from a stretch of hours, counted by Spark, not collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.lake import gold_hours
from marketflow.lake.gold_hours import Run
from marketflow.lake.gold_neighbours import DISORDER, Extent, Market, Stretch

_MICROSECOND = timedelta(microseconds=1)
# each wider look is taken only where the narrower one did not hold enough trades; the second is the grain of its count
_LOOKS: tuple[tuple[timedelta | None, timedelta], ...] = (
    (timedelta(minutes=10), timedelta(seconds=10)),
    (timedelta(hours=2), timedelta(minutes=1)),
    (timedelta(days=2), timedelta(minutes=30)),
    (timedelta(days=60), timedelta(hours=12)),
    (None, timedelta(days=30)),
)
Window = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class _Side:
    """What is looked through on one side of a stretch."""

    stretch: Stretch
    earlier: bool


def around(
    spark: SparkSession,
    trades: DataFrame,
    known: dict[Market, Extent],
    asked: Iterable[Stretch],
    *,
    before: int,
    after: int,
) -> dict[Stretch, Window]:
    """The times, inclusive, between which at least that many trades lie before and after each stretch, and itself.

    By trade_id as well as by time: trades are counted from DISORDER beyond the stretch on, and DISORDER more is given,
    so that none of a higher (lower) id is missed. Where there are fewer, the time of the product's first (last) trade.
    One count of Spark's tells of every stretch and both sides.
    """
    wanted = list(asked)
    found: dict[_Side, datetime] = {}
    sides = [_Side(stretch, earlier) for stretch in wanted for earlier in (True, False)]
    for reach, grain in _LOOKS:
        windows = {
            side: _window(side.stretch, known[side.stretch.market], reach, earlier=side.earlier)
            for side in sides
            if side not in found
        }
        counted = _counts(spark, trades, {s: w for s, w in windows.items() if w[0] < w[1]}, grain)
        for side, window in windows.items():
            extent = known[side.stretch.market]
            count = before if side.earlier else after
            border = _border(counted.get(side, {}), count, grain, earlier=side.earlier)
            if border is not None:
                found[side] = border - DISORDER if side.earlier else border + DISORDER
            elif _is_whole(window, extent, earlier=side.earlier):
                found[side] = extent.first if side.earlier else extent.last
        if len(found) == len(sides):
            break
    return {
        stretch: (
            min(found[_Side(stretch, True)], stretch.run.start),
            max(found[_Side(stretch, False)], stretch.run.end),
        )
        for stretch in wanted
    }


def _window(stretch: Stretch, extent: Extent, reach: timedelta | None, *, earlier: bool) -> Window:
    """[start, end) of what is looked through."""
    if earlier:
        limit = stretch.run.start - DISORDER
        return (extent.first if reach is None else max(extent.first, limit - reach)), limit
    limit, end = stretch.run.end + DISORDER, extent.last + _MICROSECOND
    return limit, (end if reach is None else min(end, limit + reach))


def _is_whole(window: Window, extent: Extent, *, earlier: bool) -> bool:
    """Whether there is nothing beyond it."""
    return window[0] <= extent.first if earlier else window[1] > extent.last


def _counts(
    spark: SparkSession, trades: DataFrame, windows: dict[_Side, Window], grain: timedelta
) -> dict[_Side, dict[int, int]]:
    """For each side the number of trades in each grain of its window, by the grain's number since 1970."""
    if not windows:
        return {}
    by_index = list(windows)
    rows = [(number, *side.stretch.market, *windows[side]) for number, side in enumerate(by_index)]
    looked = spark.createDataFrame(
        rows, "index int, venue string, product_id string, look_from timestamp, look_to timestamp"
    )
    width = grain // _MICROSECOND
    counted = (
        trades.where(f.col("product_id").isin({side.stretch.product_id for side in windows}))
        .where(gold_hours.prune("event_ts", (Run(*window) for window in windows.values())))
        .join(f.broadcast(looked), ["venue", "product_id"])
        .where((f.col("event_ts") >= f.col("look_from")) & (f.col("event_ts") < f.col("look_to")))
        .groupBy("index", f.floor(f.unix_micros("event_ts") / f.lit(width)).cast("bigint").alias("grain"))
        .agg(f.count(f.lit(1)).alias("trades"))
        .collect()
    )
    found: dict[_Side, dict[int, int]] = defaultdict(dict)
    for row in counted:
        found[by_index[row["index"]]][row.grain] = row.trades
    return found


def _border(counts: dict[int, int], count: int, grain: timedelta, *, earlier: bool) -> datetime | None:
    """Start of the grain (end, looking ahead) at which the count is reached, going away from the stretch."""
    reached = 0
    for number in sorted(counts, reverse=earlier):
        reached += counts[number]
        if reached >= count:
            return gold_hours.EPOCH + (number if earlier else number + 1) * grain
    return None
