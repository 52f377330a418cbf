"""Gold: pure functions of silver, hour by hour."""

from __future__ import annotations

import json
from pathlib import Path

from marketflow.contracts.columns import Column, Table, Type

MEASURES = (
    Column(
        "change_1min", Type.DOUBLE, "100·(p(t)/p(s) − 1), s at or before t − 60 s, at most 90 s older", "percent", True
    ),
    Column("change_5min", Type.DOUBLE, "the same over 300 s", "percent", True),
    Column("sma_5m", Type.DOUBLE, "mean of observations in (t − 300 s, t]", "vs_currency"),
    Column("ema_3m", Type.DOUBLE, "half-life 61.8 s over (t − 1236 s, t]", "vs_currency"),
    Column("volatility_5m", Type.DOUBLE, "sample standard deviation in (t − 300 s, t]", "vs_currency", True),
    Column("realized_volatility_5m", Type.DOUBLE, "root of summed squared log returns in the window", "", True),
    Column("observations_5m", Type.INTEGER, "observations in (t − 300 s, t]", "count"),
)

PRICE_METRICS = Table(
    layer="gold",
    name="price_metrics",
    grain="one row per observation of silver.asset_prices",
    key=("source", "asset_id", "vs_currency", "ts"),
    columns=(
        Column("source", Type.STRING, "coingecko, …"),
        Column("asset_id", Type.STRING, "the aggregator's id"),
        Column("vs_currency", Type.STRING, "lower-case quote currency"),
        Column("ts", Type.TIMESTAMP, "the observation's last_updated"),
        Column("symbol", Type.STRING, "as the aggregator writes it"),
        Column("name", Type.STRING, "as the aggregator writes it"),
        Column("price", Type.MONEY, "the observation", "vs_currency"),
        Column("market_cap", Type.MONEY, "price times circulating supply", "vs_currency", True),
        Column("market_cap_rank", Type.INTEGER, "1 is the largest", "", True),
        Column("volume_24h", Type.MONEY, "traded in 24 h", "vs_currency", True),
        Column("polled_at", Type.TIMESTAMP, "when the page arrived here"),
        *MEASURES,
    ),
    owner="gold_price_metrics",
    description="Short-term momentum of every polled asset.",
    partitioning=("source", "days(ts)"),
    sort_order=("asset_id", "ts"),
    hour_column="ts",
    day_column="ts",
)

TOP_MOVERS = Table(
    layer="gold",
    name="top_movers",
    grain="one row per place in a snapshot's ranking",
    key=("source", "vs_currency", "snapshot_ts", "direction", "rank"),
    columns=(
        Column("source", Type.STRING, "coingecko, …"),
        Column("vs_currency", Type.STRING, "lower-case quote currency"),
        Column("snapshot_ts", Type.TIMESTAMP, "the poll's poll_started_at"),
        Column("poll_id", Type.STRING, "the poll that made the snapshot"),
        Column(
            "direction",
            Type.STRING,
            "gainer: the highest change_5min, whatever its sign; loser: the lowest of the rest",
        ),
        Column("rank", Type.INTEGER, "1 has the highest change_5min (gainer), or the lowest (loser)"),
        Column("asset_id", Type.STRING, "the aggregator's id"),
        Column("symbol", Type.STRING, "as the aggregator writes it"),
        Column("name", Type.STRING, "as the aggregator writes it"),
        Column("price", Type.MONEY, "its last observation", "vs_currency"),
        Column("change_1min", Type.DOUBLE, "of that observation", "percent", True),
        Column("change_5min", Type.DOUBLE, "of that observation; what is ranked", "percent"),
        Column("volatility_5m", Type.DOUBLE, "of that observation", "vs_currency", True),
        Column("market_cap_rank", Type.INTEGER, "breaks ties", "", True),
        Column("observed_at", Type.TIMESTAMP, "the observation's own time; younger than five minutes"),
    ),
    owner="gold_price_metrics",
    description="Five gainers and five losers as of each poll.",
    partitioning=("days(snapshot_ts)",),
    sort_order=("snapshot_ts", "direction", "rank"),
    hour_column="snapshot_ts",
    day_column="snapshot_ts",
)

BARS = Table(
    layer="gold",
    name="bars",
    grain="one row per product, interval and opening time",
    key=("venue", "product_id", "interval", "open_ts"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("interval", Type.STRING, "1m, 5m, 15m, 1h or 1d; a day is UTC's"),
        Column("open_ts", Type.TIMESTAMP, "start of the interval, inclusive"),
        Column("open", Type.MONEY, "price of the trade with the lowest id", "quote currency", True),
        Column("high", Type.MONEY, "highest price", "quote currency", True),
        Column("low", Type.MONEY, "lowest price", "quote currency", True),
        Column("close", Type.MONEY, "price of the trade with the highest id", "quote currency", True),
        Column("volume", Type.MONEY, "sum of sizes", "base currency"),
        Column("notional", Type.MONEY, "sum of notionals", "quote currency"),
        Column("vwap", Type.MONEY, "notional / volume, half-even to 18 places", "quote currency", True),
        Column("trade_count", Type.LONG, "trades in the interval", "count"),
        Column("buy_volume", Type.MONEY, "sizes that takers bought", "base currency"),
        Column("sell_volume", Type.MONEY, "sizes that takers sold", "base currency"),
        Column(
            "has_gap",
            Type.BOOLEAN,
            "a hole in trade_id whose neighbours' times span any moment of the interval; always true for venues "
            "ccxt_*, which do not number their trades one by one: a missing one cannot be seen",
        ),
        Column(
            "is_complete",
            Type.BOOLEAN,
            "the interval's end is at or before silver's complete_through, and a later trade is known",
        ),
        Column("first_trade_id", Type.LONG, "lowest trade_id in the interval, whose price is open", "", True),
        Column("last_trade_id", Type.LONG, "highest trade_id in the interval, whose price is close", "", True),
    ),
    owner="gold_bars",
    description="Bars from trades. An interval without a trade between a product's first and last trade has count 0.",
    partitioning=("interval", "days(open_ts)"),
    sort_order=("venue", "product_id", "open_ts"),
    hour_column="open_ts",
    day_column="open_ts",
)

# generated from the kernel's catalogue: docs/features.md says more of each
_FEATURES = (Path(__file__).parent / "trade_features.ndjson").read_text().splitlines()

TRADE_FEATURES = Table(
    layer="gold",
    name="trade_features",
    grain="one row per trade with 500 trades before it",
    key=("venue", "product_id", "trade_id"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …; no venue ccxt_*, whose ids tell of no missing trade"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("trade_id", Type.LONG, "the venue's id; the order of the rows"),
        Column("event_ts", Type.TIMESTAMP, "when the venue says it happened"),
        Column("price", Type.MONEY, "of the trade", "quote currency"),
        Column("size", Type.MONEY, "of the trade", "base currency"),
        Column("taker_side", Type.STRING, "buy or sell: what the taker did"),
        *(Column(**line | {"type": Type[line["type"]]}) for line in map(json.loads, _FEATURES)),
        Column("is_final", Type.BOOLEAN, "50 later trades are known: the row's targets will not change"),
    ),
    owner="gold_trade_features",
    description="Features and targets of every trade for learning: no feature reads what came after its trade.",
    partitioning=("product_id", "days(event_ts)"),
    sort_order=("venue", "trade_id"),
    hour_column="event_ts",
)

PRODUCT_DAY = Table(
    layer="gold",
    name="product_day",
    grain="one row per product and day that has ended",
    key=("venue", "product_id", "day"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("day", Type.TIMESTAMP, "midnight UTC with which the day begins"),
        Column("open", Type.MONEY, "price of the trade with the lowest id", "quote currency", True),
        Column("high", Type.MONEY, "highest price", "quote currency", True),
        Column("low", Type.MONEY, "lowest price", "quote currency", True),
        Column("close", Type.MONEY, "price of the trade with the highest id", "quote currency", True),
        Column("volume", Type.MONEY, "sum of sizes", "base currency"),
        Column("notional", Type.MONEY, "sum of notionals", "quote currency"),
        Column("vwap", Type.MONEY, "notional / volume, half-even to 18 places", "quote currency", True),
        Column("trade_count", Type.LONG, "trades in the day", "count"),
        Column("buy_volume", Type.MONEY, "sizes that takers bought", "base currency"),
        Column("sell_volume", Type.MONEY, "sizes that takers sold", "base currency"),
        Column(
            "volatility",
            Type.DOUBLE,
            "root of the summed squared log returns from close to close of the day's five-minute bars with a trade; "
            "null with fewer than two",
            "",
            True,
        ),
        Column("gap_minutes", Type.INTEGER, "one-minute bars of the day with has_gap", "count"),
        Column("hours", Type.INTEGER, "hourly bars of the day; fewer than 24 on a product's first and last", "count"),
        Column("complete_hours", Type.INTEGER, "of them those with is_complete", "count"),
        Column("is_complete", Type.BOOLEAN, "the day bar's: the day is silver's, and a later trade is known"),
    ),
    owner="gold_daily",
    description="A day of a product in one row, from gold.bars. A day that has not ended is not here: its bar is.",
    partitioning=("days(day)",),
    sort_order=("venue", "product_id"),
    hour_column="day",
)

GOLD_TABLES = (PRICE_METRICS, TOP_MOVERS, BARS, TRADE_FEATURES, PRODUCT_DAY)
BAR_INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400}
