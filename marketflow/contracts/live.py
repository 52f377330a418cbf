"""Postgres live.*: written by the stream alone, within a trigger of arrival; columns shared with gold are gold's."""

from __future__ import annotations

from marketflow.contracts.columns import Column, Table, Type
from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS, TRADE_FEATURES
from marketflow.contracts.silver import ASSET_PRICES, QUOTES, TRADES

ASSET_OBSERVATION = Table(
    layer="live",
    name="asset_observation",
    grain="one row per price an aggregator published",
    key=ASSET_PRICES.key,
    columns=tuple(
        column
        for column in ASSET_PRICES.columns
        if column.name
        in (
            *ASSET_PRICES.key,
            *("symbol", "name", "price", "market_cap", "market_cap_rank", "volume_24h", "change_24h_pct"),
            *("polled_at", "poll_id", "poll_started_at", "origin"),
        )
    ),
    owner="market_stream",
    description="What the live query has seen; the first value of a key wins, as in silver.",
    day_column="last_updated",
)

LIVE_PRICE_METRICS = Table(
    layer="live",
    name="price_metrics",
    grain=PRICE_METRICS.grain,
    key=PRICE_METRICS.key,
    columns=PRICE_METRICS.columns,
    owner="market_stream",
    description="gold.price_metrics as the stream knows it now.",
    day_column=PRICE_METRICS.day_column,
)

LIVE_TOP_MOVERS = Table(
    layer="live",
    name="top_movers",
    grain=TOP_MOVERS.grain,
    key=TOP_MOVERS.key,
    columns=TOP_MOVERS.columns,
    owner="market_stream",
    description="gold.top_movers as the stream knows it now.",
    day_column=TOP_MOVERS.day_column,
)

TRADE_TAIL = Table(
    layer="live",
    name="trade_tail",
    grain="one row per trade among the newest 501 of its venue and product, by trade_id",
    key=TRADES.key,
    columns=tuple(
        column
        for column in TRADES.columns
        if column.name in (*TRADES.key, "price", "size", "taker_side", "event_ts", "sequence", "received_at")
    ),
    owner="market_stream",
    description="What live.feature_latest is made of; the first trade of a key wins, as in silver. No venue ccxt_*.",
)

QUOTE_TAIL = Table(
    layer="live",
    name="quote_tail",
    grain="one row per quote that may yet be the last before a newest trade",
    key=("venue", "product_id", "sequence", "key_ts"),
    columns=(
        *(
            column
            for column in QUOTES.columns
            if column.name in (*QUOTES.key, "best_bid", "best_bid_size", "best_ask", "best_ask_size")
        ),
        Column("key_ts", Type.TIMESTAMP, "event_ts where there is no sequence, and null where there is", nullable=True),
    ),
    owner="market_stream",
    description="Quotes from 125 s before a product's newest trades on, and of the last 15 minutes of quotes at most.",
)

FEATURE_LATEST = Table(
    layer="live",
    name="feature_latest",
    grain="one row per venue and product: its trade of the highest trade_id",
    key=("venue", "product_id"),
    columns=(
        *TRADE_FEATURES.columns,
        Column("history", Type.INTEGER, "trades known before it, 500 at most; below 500 a window may be null", "count"),
        Column("received_at", Type.TIMESTAMP, "when the trade arrived here"),
        Column("written_at", Type.TIMESTAMP, "when the row was last computed: a late trade or quote may change it"),
    ),
    owner="market_stream",
    description="Features of the newest trade of each product, by the kernel of gold.trade_features. Targets are null.",
)

LIVE_BATCH = Table(
    layer="live",
    name="batch",
    grain="one row per streaming query",
    key=("query",),
    columns=(
        Column("query", Type.STRING, "name of the streaming query"),
        Column("batch_id", Type.LONG, "highest batch written; a batch id not above it does nothing"),
        Column("written_at", Type.TIMESTAMP, "when that batch was committed"),
    ),
    owner="market_stream",
    description="What makes the live queries idempotent.",
)

LIVE_TABLES = (
    ASSET_OBSERVATION,
    LIVE_PRICE_METRICS,
    LIVE_TOP_MOVERS,
    TRADE_TAIL,
    QUOTE_TAIL,
    FEATURE_LATEST,
    LIVE_BATCH,
)
