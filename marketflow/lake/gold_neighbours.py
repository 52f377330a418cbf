"""The trades on either side of a stretch of hours: what bars need as context, and how far a new trade reaches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.sources import CCXT_AFTER, CCXT_PREFIX
from marketflow.features.trades.tape import DISORDER as DISORDER
from marketflow.lake import gold_hours
from marketflow.lake.gold_hours import Run

_MICROSECOND = timedelta(microseconds=1)
# neighbours are usually minutes away; each wider look is taken only for what the narrower one did not find
_REACHES: tuple[timedelta | None, ...] = (timedelta(hours=2), timedelta(days=2), timedelta(days=60), None)


# venue and product
Market = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Extent:
    """A product's first and last trade, as the data files' own bounds say."""

    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Hours of one product at one venue."""

    venue: str
    product_id: str
    run: Run

    @property
    def market(self) -> Market:
        """Venue and product."""
        return self.venue, self.product_id


@dataclass(frozen=True, slots=True)
class Context:
    """Times that hold a stretch with the last trade before and the first after it, both inclusive."""

    first: datetime
    last: datetime


def extents(spark: SparkSession, name: str) -> dict[Market, Extent]:
    """First and last trade of each product at each venue, from metadata; of venues ccxt_* also from their names.

    A file that may hold trades of several venues counts for each of them, so an extent may be too wide, never too
    narrow; a venue that no file can hold is not there.
    """
    bounds = "readable_metrics"
    rows = (
        spark.table(f"{name}.files")
        .groupBy(
            f.col("partition.product_id").alias("product_id"),
            f.expr(f"{bounds}.venue.lower_bound").alias("lowest"),
            f.expr(f"{bounds}.venue.upper_bound").alias("highest"),
        )
        .agg(
            f.min(f.unix_micros(f.expr(f"{bounds}.event_ts.lower_bound"))).alias("first"),
            f.max(f.unix_micros(f.expr(f"{bounds}.event_ts.upper_bound"))).alias("last"),
        )
        .collect()
    )
    found: dict[Market, Extent] = {}
    unlisted = any((row.lowest or "") < CCXT_AFTER and (row.highest or CCXT_PREFIX) >= CCXT_PREFIX for row in rows)
    others = _other_venues(spark, name) if unlisted else {}
    for row in rows:
        for venue in (*PRODUCTS[row.product_id].names, *others.get(row.product_id, ())):
            # bounds are cut to 16 characters, the upper one rounded up
            if (row.lowest or "") <= venue and (row.highest is None or venue <= row.highest):
                first, last = gold_hours.moment(row["first"]), gold_hours.moment(row["last"])
                known = found.get((venue, row.product_id), Extent(first, last))
                found[venue, row.product_id] = Extent(min(first, known.first), max(last, known.last))
    return found


def _other_venues(spark: SparkSession, name: str) -> dict[str, list[str]]:
    """By product the venues that no registry lists: those of the library ccxt. Files that can hold none stay shut."""
    venue = f.col("venue")
    rows = (
        spark.table(name)
        .where((venue >= CCXT_PREFIX) & (venue < CCXT_AFTER))
        .select("product_id", "venue")
        .distinct()
        .collect()
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.product_id, []).append(row.venue)
    return found


def contexts(
    spark: SparkSession, trades: DataFrame, known: dict[Market, Extent], asked: Iterable[Stretch]
) -> dict[Stretch, Context]:
    """For each stretch the times to read so that every bar in it has its neighbours by time and by trade_id.

    The last trade before is looked for DISORDER earlier than the start, and DISORDER more is read before it: then
    every trade with a lower id than it lies before the stretch, and so does every hole between two of those. The same
    holds after. Where there is no trade before, the product's first is as far as there is to read.
    """
    wanted = sorted(asked)
    before = _search(spark, trades, wanted, known, earlier=True)
    after = _search(spark, trades, wanted, known, earlier=False)
    found = {}
    for stretch in wanted:
        extent = known[stretch.market]
        first = before.get(stretch, stretch.run.start) - DISORDER
        last = after.get(stretch, stretch.run.end) + DISORDER
        found[stretch] = Context(
            max(first, min(extent.first, stretch.run.start)),
            min(last, max(extent.last, stretch.run.end - _MICROSECOND)),
        )
    return found


def _search(
    spark: SparkSession, trades: DataFrame, wanted: list[Stretch], known: dict[Market, Extent], *, earlier: bool
) -> dict[Stretch, datetime]:
    """The last trade before (or first after) each stretch that has one, at least DISORDER away from it."""
    found: dict[Stretch, datetime] = {}
    for reach in _REACHES:
        windows = {}
        for stretch in wanted:
            extent = known[stretch.market]
            limit = stretch.run.start - DISORDER if earlier else stretch.run.end + DISORDER
            if stretch in found or (extent.first >= limit if earlier else extent.last < limit):
                continue
            if earlier:
                windows[stretch] = (max(extent.first, limit - reach) if reach else extent.first, limit)
            else:
                end = extent.last + _MICROSECOND
                windows[stretch] = (limit, min(end, limit + reach) if reach else end)
        if not windows:
            break
        found |= _look(spark, trades, windows, earlier=earlier)
    return found


def _look(
    spark: SparkSession, trades: DataFrame, windows: dict[Stretch, tuple[datetime, datetime]], *, earlier: bool
) -> dict[Stretch, datetime]:
    stretches_by_index = list(windows)
    rows = [
        (index, stretch.venue, stretch.product_id, *windows[stretch])
        for index, stretch in enumerate(stretches_by_index)
    ]
    looked = spark.createDataFrame(
        rows, "index int, venue string, product_id string, look_from timestamp, look_to timestamp"
    )
    moments = f.unix_micros(f.col("event_ts"))
    hits = (
        trades.where(f.col("product_id").isin({stretch.product_id for stretch in windows}))
        .where(gold_hours.prune("event_ts", (Run(*window) for window in windows.values())))
        .join(f.broadcast(looked), ["venue", "product_id"])
        .where((f.col("event_ts") >= f.col("look_from")) & (f.col("event_ts") < f.col("look_to")))
        .groupBy("index")
        .agg((f.max(moments) if earlier else f.min(moments)).alias("moment"))
        .collect()
    )
    return {stretches_by_index[row["index"]]: gold_hours.moment(row.moment) for row in hits}
