"""The catalogue's trade features written the usual way: Spark SQL windows of rows, for comparison only.

By `rowsBetween` over (venue, product) in the order of trade_id, and the quote as of the trade by a window over trades
and quotes together. It is what such projects do; it is not held to what is right here (warm-up, holes, digits), only to
the same amount of work. The common contract is 63 of the columns; the whole has all of the catalogue that such windows
can express. What they cannot is in `NOT_EXPRESSED`.
"""

from __future__ import annotations

import math

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

_BY = ("venue", "product_id")
_BOOK = ("best_bid", "best_ask", "best_bid_size", "best_ask_size")
NOT_EXPRESSED = (
    "ema_10_trades",
    "ema_50_trades",
    "ema_100_trades",
    "rsi_14_trades",
    "macd_12_26",
    "macd_signal_9",
    "macd_histogram",
    "aggressor_run_length",
    "quote_join",
)
"""Weighted sums and runs, which a window's aggregates do not make, and what says how the quote was joined."""


def common_features(trades: DataFrame, quotes: DataFrame) -> DataFrame:
    """A row per trade with the 63 columns of the common contract beside its key."""
    rows = _quoted(_needed(trades), quotes, _BOOK[:2])
    return rows.select("*", *(column.alias(name) for name, column in _common().items()))


def all_features(trades: DataFrame, quotes: DataFrame) -> DataFrame:
    """A row per trade with every column of the catalogue that windows of rows can express."""
    order = Window.partitionBy(*_BY).orderBy("trade_id")
    before = f.lag("price").over(order)
    rows = _quoted(_needed(trades), quotes, (*_BOOK, "quote_ts")).withColumns(
        {
            "step": f.col("price") - before,
            "log_return_1": f.log(f.col("price") / before),
            "signed": f.when(f.col("taker_side") == "buy", f.col("size")).otherwise(-f.col("size")),
            "gap_before": f.col("trade_id") - f.lag("trade_id").over(order) > 1,
        }
    )
    made = {**_common(), **_others(order)}
    return rows.select("*", *(column.alias(name) for name, column in made.items())).drop("step", "signed")


def _needed(trades: DataFrame) -> DataFrame:
    return trades.select(
        *_BY, "trade_id", "event_ts", f.col("price").cast("double"), f.col("size").cast("double"), "taker_side"
    )


def _common() -> dict[str, Column]:
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
    return made


def _others(order: Window) -> dict[str, Column]:
    price, size, signed = f.col("price"), f.col("size"), f.col("signed")
    change = f.col("log_return_1")
    made: dict[str, Column] = {}
    for w in (10, 50, 100, 500):
        window = _last(order, w)
        low, high = f.min(price).over(window), f.max(price).over(window)
        vwap = f.sum(price * size).over(window) / f.sum(size).over(window)
        seconds = f.col("event_ts").cast("double") - f.lag("event_ts", w - 1).over(order).cast("double")
        made |= {
            f"price_position_{w}": (price - low) / f.nullif(high - low, f.lit(0.0)),
            f"realized_volatility_{w}": f.sqrt(f.sum(change * change).over(window)),
            f"vwap_{w}": vwap,
            f"order_flow_imbalance_{w}": f.sum(signed).over(window) / f.sum(size).over(window),
            f"trades_per_second_{w}": (w - 1) / f.nullif(seconds, f.lit(0.0)),
        }
        if w >= 50:
            made |= {
                f"zscore_{w}": (price - f.avg(price).over(window)) / f.stddev_samp(price).over(window),
                f"price_vs_vwap_{w}": 100 * (price / vwap - 1),
                f"amihud_{w}": f.avg(f.abs(change) / (price * size)).over(window),
            }
        if w <= 100:
            made[f"signed_volume_{w}"] = f.sum(signed).over(window)
        if w >= 100:
            moved = f.covar_samp("step", "signed").over(window)
            made[f"kyle_lambda_{w}"] = moved / f.nullif(f.var_samp(signed).over(window), f.lit(0.0))
    whole = _last(order, 500)
    day = 2 * math.pi * f.pmod(f.unix_timestamp("event_ts"), f.lit(86_400)) / 86_400
    week = 2 * math.pi * f.pmod(f.unix_timestamp("event_ts") + 3 * 86_400, f.lit(604_800)) / 604_800
    bid, ask, bids, asks = (f.col(name) for name in _BOOK)
    mid = (bid + ask) / 2
    taker = f.when(f.col("taker_side") == "buy", 1).otherwise(-1)
    return made | {
        "volatility_500": f.stddev_samp(price).over(whole),
        "volume_500": f.sum(size).over(whole),
        "price_change_100": price - f.lag(price, 100).over(order),
        "return_5": 100 * (price / f.lag(price, 5).over(order) - 1),
        "seconds_since_previous": f.col("event_ts").cast("double") - f.lag("event_ts").over(order).cast("double"),
        "hour_sin": f.sin(day),
        "hour_cos": f.cos(day),
        "weekday_sin": f.sin(week),
        "weekday_cos": f.cos(week),
        "mid_price": mid,
        "microprice": (bid * asks + ask * bids) / (bids + asks),
        "spread_bps": 10_000 * (ask - bid) / mid,
        "book_imbalance": (bids - asks) / (bids + asks),
        "effective_spread_bps": 20_000 * taker * (price - mid) / mid,
        "quote_age_ms": 1000 * (f.col("event_ts").cast("double") - f.col("quote_ts").cast("double")),
        "gaps_in_window_500": f.sum(f.col("gap_before").cast("int")).over(whole),
    }


def _last(order: Window, rows: int) -> Window:
    return order.rowsBetween(-(rows - 1), 0)


def _quoted(trades: DataFrame, quotes: DataFrame, carry: tuple[str, ...]) -> DataFrame:
    """Each trade with `carry` of the last quote before it: both in one order, the columns carried forward."""
    told = quotes.join(f.broadcast(trades.select(*_BY).distinct()), list(_BY), "left_semi").select(
        *_BY,
        "event_ts",
        f.col("event_ts").alias("quote_ts"),
        *(f.col(name).cast("double").alias(name) for name in _BOOK),
        f.lit(0).alias("is_trade"),
    )
    both = trades.withColumn("is_trade", f.lit(1)).unionByName(told, allowMissingColumns=True)
    before = Window.partitionBy(*_BY).orderBy("event_ts", "is_trade").rowsBetween(Window.unboundedPreceding, -1)
    carried = [f.last(name, ignorenulls=True).over(before).alias(name) for name in carry]
    columns = [name for name in both.columns if name not in (*_BOOK, "quote_ts")]
    return both.select(*columns, *carried).where("is_trade = 1").drop("is_trade")
