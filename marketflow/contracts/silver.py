"""Silver: typed, exact, deduplicated. Each row says which Kafka record it came from."""

from __future__ import annotations

from marketflow.contracts.bronze import LINEAGE
from marketflow.contracts.columns import Column, Table, Type

ORIGIN_COLUMNS = (
    *LINEAGE,
    Column("item_index", Type.INTEGER, "position of the item in its message, from 0"),
)

TRADES = Table(
    layer="silver",
    name="trades",
    grain="one row per trade",
    key=("venue", "product_id", "trade_id"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product, BASE-QUOTE"),
        Column("trade_id", Type.LONG, "the venue's id, contiguous per product (but for venues ccxt_*)"),
        Column("price", Type.MONEY, "price of one unit of base", "quote currency"),
        Column("size", Type.MONEY, "amount traded", "base currency"),
        Column("notional", Type.MONEY, "price times size, rounded half-even to 18 places at parse", "quote currency"),
        Column("taker_side", Type.STRING, "buy or sell: what the taker did"),
        Column("side_raw", Type.STRING, "the venue's own word, before any flip"),
        Column("event_ts", Type.TIMESTAMP, "when the venue says it happened"),
        Column("received_at", Type.TIMESTAMP, "when the payload arrived here"),
        Column("sequence", Type.LONG, "the venue's sequence number, where it has one", nullable=True),
        Column("origin", Type.STRING, "live, simulated, replay, heal or backfill"),
        *ORIGIN_COLUMNS,
        Column(
            "float_born",
            Type.BOOLEAN,
            "true where price and size were binary floats before they came here (ccxt): their shortest text, not the "
            "venue's own; null where they are exact",
            nullable=True,
        ),
    ),
    owner="silver",
    description="Every trade once, with the taker's side.",
    partitioning=("product_id", "days(event_ts)"),
    sort_order=("trade_id",),
    hour_column="event_ts",
)

QUOTES = Table(
    layer="silver",
    name="quotes",
    grain="one row per best bid and ask",
    key=("venue", "product_id", "sequence", "event_ts"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("sequence", Type.LONG, "the venue's sequence; where null, event_ts is the key", nullable=True),
        Column("event_ts", Type.TIMESTAMP, "when the venue says it held"),
        Column("best_bid", Type.MONEY, "highest bid", "quote currency"),
        Column("best_bid_size", Type.MONEY, "amount at the bid", "base currency", nullable=True),
        Column("best_ask", Type.MONEY, "lowest ask", "quote currency"),
        Column("best_ask_size", Type.MONEY, "amount at the ask", "base currency", nullable=True),
        Column("last_price", Type.MONEY, "price of the last trade", "quote currency", nullable=True),
        Column("last_trade_id", Type.LONG, "trade that moved the book, where said", nullable=True),
        Column("open_24h", Type.MONEY, "price 24 h ago", "quote currency", nullable=True),
        Column("high_24h", Type.MONEY, "highest of 24 h", "quote currency", nullable=True),
        Column("low_24h", Type.MONEY, "lowest of 24 h", "quote currency", nullable=True),
        Column("volume_24h", Type.MONEY, "traded in 24 h", "base currency", nullable=True),
        Column("received_at", Type.TIMESTAMP, "when the payload arrived here"),
        Column("origin", Type.STRING, "live, simulated, replay, heal or backfill"),
        *ORIGIN_COLUMNS,
    ),
    owner="silver",
    description="The top of the book after each change that the venue reported.",
    partitioning=("product_id", "days(event_ts)"),
    sort_order=("event_ts",),
    hour_column="event_ts",
)

ASSET_PRICES = Table(
    layer="silver",
    name="asset_prices",
    grain="one row per price an aggregator published",
    key=("source", "asset_id", "vs_currency", "last_updated"),
    columns=(
        Column("source", Type.STRING, "coingecko, …"),
        Column("asset_id", Type.STRING, "the aggregator's id; symbols collide, ids do not"),
        Column("vs_currency", Type.STRING, "lower-case quote currency"),
        Column("last_updated", Type.TIMESTAMP, "when the aggregator says the price was made"),
        Column("symbol", Type.STRING, "as the aggregator writes it"),
        Column("name", Type.STRING, "as the aggregator writes it"),
        Column("price", Type.MONEY, "price of one unit", "vs_currency"),
        Column("market_cap", Type.MONEY, "price times circulating supply", "vs_currency", nullable=True),
        Column("market_cap_rank", Type.INTEGER, "1 is the largest", nullable=True),
        Column("fully_diluted_valuation", Type.MONEY, "price times all supply", "vs_currency", nullable=True),
        Column("volume_24h", Type.MONEY, "traded in 24 h", "vs_currency", nullable=True),
        Column("high_24h", Type.MONEY, "highest of 24 h", "vs_currency", nullable=True),
        Column("low_24h", Type.MONEY, "lowest of 24 h", "vs_currency", nullable=True),
        Column("change_24h_pct", Type.MONEY, "change of 24 h", "percent", nullable=True),
        Column("circulating_supply", Type.MONEY, "units in circulation", "asset units", nullable=True),
        Column("total_supply", Type.MONEY, "units that exist", "asset units", nullable=True),
        Column("max_supply", Type.MONEY, "units that can ever exist", "asset units", nullable=True),
        Column("polled_at", Type.TIMESTAMP, "when the page arrived here (received_at)"),
        Column("poll_id", Type.STRING, "one id for all pages of a poll"),
        Column("poll_started_at", Type.TIMESTAMP, "when the poll's first request was sent"),
        Column("origin", Type.STRING, "live, simulated, replay, heal or backfill"),
        *ORIGIN_COLUMNS,
    ),
    owner="silver",
    description="Aggregators' prices, each published value once.",
    partitioning=("source", "days(last_updated)"),
    sort_order=("asset_id", "last_updated"),
    hour_column="last_updated",
)

CANDLES = Table(
    layer="silver",
    name="candles",
    grain="one row per candle that a venue reported",
    key=("venue", "product_id", "interval", "open_ts"),
    columns=(
        Column("venue", Type.STRING, "coinbase_exchange, …"),
        Column("product_id", Type.STRING, "canonical product"),
        Column("interval", Type.STRING, "1m, 5m, 15m, 1h, 6h or 1d"),
        Column("open_ts", Type.TIMESTAMP, "start of the interval, inclusive, on the interval's grid from 1970 on"),
        Column("open", Type.MONEY, "first price", "quote currency"),
        Column("high", Type.MONEY, "highest price", "quote currency"),
        Column("low", Type.MONEY, "lowest price", "quote currency"),
        Column("close", Type.MONEY, "last price", "quote currency"),
        Column("volume", Type.MONEY, "traded; half-even to 18 places where the venue sends a double", "base currency"),
        Column("notional", Type.MONEY, "traded, where the venue says it", "quote currency", nullable=True),
        Column("trade_count", Type.LONG, "trades, where the venue says it", "count", nullable=True),
        Column("received_at", Type.TIMESTAMP, "when the payload arrived here; never before the candle's end"),
        Column("origin", Type.STRING, "live, simulated, replay, heal or backfill"),
        *ORIGIN_COLUMNS,
    ),
    owner="silver",
    description="Candles as the venues report them, each once. They check gold.bars and are never mixed into it.",
    partitioning=("product_id", "interval"),
    sort_order=("open_ts",),
    hour_column="open_ts",
)

REJECTED = Table(
    layer="silver",
    name="rejected",
    grain="one row per item that no table could take",
    key=("topic", "partition", "offset", "item_index"),
    columns=(
        *LINEAGE,
        Column("item_index", Type.INTEGER, "position in its message; -1 for the whole message"),
        Column("source_table", Type.STRING, "the silver table that refused it, e.g. silver.trades"),
        Column("venue", Type.STRING, "from the header", nullable=True),
        Column("channel", Type.STRING, "from the header", nullable=True),
        Column("reason", Type.STRING, "one of marketflow.contracts.reasons.Reason"),
        Column("detail", Type.STRING, "a sentence that names field and value"),
        Column("value", Type.BINARY, "the message's bytes", nullable=True),
        Column("received_at", Type.TIMESTAMP, "from the header", nullable=True),
        Column("rejected_at", Type.TIMESTAMP, "ingested_at of the bronze row, so a rerun writes the same row"),
    ),
    owner="silver",
    description="Quarantine: what was refused, why, and its bytes.",
    partitioning=("days(rejected_at)",),
)

SILVER_TABLES = (TRADES, QUOTES, ASSET_PRICES, CANDLES, REJECTED)
CANDLE_INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "6h": 21_600, "1d": 86_400}
