"""How far back (or ahead) a number of trades reaches from a stretch of hours, counted by Spark, not collected."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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


def before(
    spark: SparkSession, trades: DataFrame, known: dict[Market, Extent], asked: Iterable[Stretch], count: int
) -> dict[Stretch, datetime]:
    """The time from which on at least `count` trades lie before each stretch, by trade_id as well as by time.

    They are counted up to DISORDER before the start, and DISORDER more is given, so that no trade of a higher id is
    missed; where there are fewer, the product's first trade's time.
    """
    return _reach(spark, trades, known, sorted(asked), count, earlier=True)


def after(
    spark: SparkSession, trades: DataFrame, known: dict[Market, Extent], asked: Iterable[Stretch], count: int
) -> dict[Stretch, datetime]:
    """The time, inclusive, up to which at least `count` trades lie after each stretch, in the same way."""
    return _reach(spark, trades, known, sorted(asked), count, earlier=False)


def _reach(
    spark: SparkSession,
    trades: DataFrame,
    known: dict[Market, Extent],
    wanted: list[Stretch],
    count: int,
    *,
    earlier: bool,
) -> dict[Stretch, datetime]:
    found: dict[Stretch, datetime] = {}
    for reach, grain in _LOOKS:
        windows: dict[Stretch, Window] = {}
        for stretch in wanted:
            if stretch not in found:
                windows[stretch] = _window(stretch, known[stretch.market], reach, earlier=earlier)
        counted = _counts(spark, trades, {s: w for s, w in windows.items() if w[0] < w[1]}, grain)
        for stretch, window in windows.items():
            border = _border(counted.get(stretch, {}), count, grain, earlier=earlier)
            if border is not None:
                found[stretch] = border - DISORDER if earlier else border + DISORDER
            elif _is_whole(window, known[stretch.market], earlier=earlier):
                extent = known[stretch.market]
                found[stretch] = extent.first if earlier else extent.last
        if len(found) == len(wanted):
            break
    return found


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
    spark: SparkSession, trades: DataFrame, windows: dict[Stretch, Window], grain: timedelta
) -> dict[Stretch, dict[int, int]]:
    """For each stretch the number of trades in each grain of its window, by the grain's number since 1970."""
    if not windows:
        return {}
    by_index = list(windows)
    rows = [(index, each.venue, each.product_id, *windows[each]) for index, each in enumerate(by_index)]
    looked = spark.createDataFrame(
        rows, "index int, venue string, product_id string, look_from timestamp, look_to timestamp"
    )
    width = grain // _MICROSECOND
    counted = (
        trades.where(f.col("product_id").isin({each.product_id for each in windows}))
        .where(gold_hours.prune("event_ts", (Run(*window) for window in windows.values())))
        .join(f.broadcast(looked), ["venue", "product_id"])
        .where((f.col("event_ts") >= f.col("look_from")) & (f.col("event_ts") < f.col("look_to")))
        .groupBy("index", f.floor(f.unix_micros("event_ts") / f.lit(width)).cast("bigint").alias("grain"))
        .agg(f.count(f.lit(1)).alias("trades"))
        .collect()
    )
    found: dict[Stretch, dict[int, int]] = defaultdict(dict)
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
