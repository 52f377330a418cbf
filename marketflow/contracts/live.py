"""Postgres live.*: written by the stream alone, seconds after the poll; columns shared with gold are gold's."""

from __future__ import annotations

from marketflow.contracts.columns import Column, Table, Type
from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS
from marketflow.contracts.silver import ASSET_PRICES

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
)

LIVE_PRICE_METRICS = Table(
    layer="live",
    name="price_metrics",
    grain=PRICE_METRICS.grain,
    key=PRICE_METRICS.key,
    columns=PRICE_METRICS.columns,
    owner="market_stream",
    description="gold.price_metrics as the stream knows it now.",
)

LIVE_TOP_MOVERS = Table(
    layer="live",
    name="top_movers",
    grain=TOP_MOVERS.grain,
    key=TOP_MOVERS.key,
    columns=TOP_MOVERS.columns,
    owner="market_stream",
    description="gold.top_movers as the stream knows it now.",
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
    description="What makes the live query idempotent.",
)

LIVE_TABLES = (ASSET_OBSERVATION, LIVE_PRICE_METRICS, LIVE_TOP_MOVERS, LIVE_BATCH)
