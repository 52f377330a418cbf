"""The common contract of trade features written the usual way: Spark SQL windows of rows, for comparison only.

57 features and 6 targets by `rowsBetween` over (venue, product) in the order of trade_id, and the quote as of the trade
by a window over trades and quotes together. It is what such projects do; it is not held to what is right here (warm-up,
holes, digits), only to the same amount of work.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

_BY = ("venue", "product_id")


def common_features(trades: DataFrame, quotes: DataFrame) -> DataFrame:
    """A row per trade with the 63 columns beside its key."""
    rows = _quoted(
        trades.select(
            *_BY, "trade_id", "event_ts", f.col("price").cast("double"), f.col("size").cast("double"), "taker_side"
        ),
        quotes,
    )
    order = Window.partitionBy(*_BY).orderBy("trade_id")
    price, size = f.col("price"), f.col("size")
    is_buy = f.col("taker_side") == "buy"
    made: dict[str, Column] = {}
    for w in (10, 50, 100, 500):
        made[f"ma_{w}_trades"] = f.avg(price).over(_last(order, w))
    for w in (10, 50, 100):
        window = _last(order, w)
        made[f"min_{w}_trades"] = f.min(price).over(window)
        made[f"max_{w}_trades"] = f.max(price).over(window)
        made[f"price_range_{w}"] = f.max(price).over(window) - f.min(price).over(window)
        made[f"volatility_{w}"] = f.stddev_samp(price).over(window)
        made[f"price_vs_ma_{w}"] = 100 * (price / f.avg(price).over(window) - 1)
        made[f"volume_{w}"] = f.sum(size).over(window)
        made[f"volume_ma_{w}"] = f.avg(size).over(window)
    for w in (10, 50):
        made[f"volume_ratio_{w}"] = size / f.avg(size).over(_last(order, w))
    for w in (1, 5, 10, 50):
        made[f"price_change_{w}"] = price - f.lag(price, w).over(order)
    for w in (1, 10, 50, 100):
        made[f"return_{w}"] = 100 * (price / f.lag(price, w).over(order) - 1)
    for w in (50, 100):
        window = _last(order, w)
        buys, sells = f.sum(is_buy.cast("int")).over(window), f.sum((~is_buy).cast("int")).over(window)
        bought = f.sum(f.when(is_buy, size).otherwise(0.0)).over(window)
        sold = f.sum(f.when(is_buy, 0.0).otherwise(size)).over(window)
        made |= {
            f"buy_count_{w}": buys,
            f"sell_count_{w}": sells,
            f"buy_sell_ratio_{w}": buys / f.nullif(sells, f.lit(0)),
        }
        made |= {f"buy_volume_{w}": bought, f"sell_volume_{w}": sold, f"buy_volume_ratio_{w}": bought / (bought + sold)}
    made |= {
        "hour_of_day": f.hour("event_ts"),
        "day_of_week": f.weekday("event_ts"),
        "is_weekend": f.weekday("event_ts") >= 5,
        "is_buy": is_buy,
        "bid_ask_spread": f.col("best_ask") - f.col("best_bid"),
        "spread_pct": 200 * (f.col("best_ask") - f.col("best_bid")) / (f.col("best_ask") + f.col("best_bid")),
        "price_vs_bid": 100 * (price / f.col("best_bid") - 1),
        "price_vs_ask": 100 * (price / f.col("best_ask") - 1),
    }
    for w in (10, 50):
        later = f.lead(price, w).over(order)
        made |= {
            f"future_price_{w}": later,
            f"target_return_{w}": 100 * (later / price - 1),
            f"target_direction_{w}": f.when(later > price, 1).when(later < price, 0),
        }
    return rows.select("*", *(column.alias(name) for name, column in made.items()))


def _last(order: Window, rows: int) -> Window:
    return order.rowsBetween(-(rows - 1), 0)


def _quoted(trades: DataFrame, quotes: DataFrame) -> DataFrame:
    """Each trade with the last quote before it: both in one order, the quote's columns carried forward."""
    book = ("best_bid", "best_ask")
    told = quotes.join(f.broadcast(trades.select(*_BY).distinct()), list(_BY), "left_semi").select(
        *_BY, "event_ts", *(f.col(name).cast("double").alias(name) for name in book), f.lit(0).alias("is_trade")
    )
    both = trades.withColumn("is_trade", f.lit(1)).unionByName(told, allowMissingColumns=True)
    before = Window.partitionBy(*_BY).orderBy("event_ts", "is_trade").rowsBetween(Window.unboundedPreceding, -1)
    carried = [f.last(name, ignorenulls=True).over(before).alias(name) for name in book]
    columns = [name for name in both.columns if name not in book]
    return both.select(*columns, *carried).where("is_trade = 1").drop("is_trade")
