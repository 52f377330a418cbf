"""Kafka topics and the headers that say what a payload does not. The value is the payload exactly as received."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = "1"
MAX_MESSAGE_BYTES = 8 * 1024**2
OVERSIZE_KEPT_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Topic:
    """One raw topic. `bronze` is the table its records land in; the dataset's prefix comes from settings."""

    name: str
    partitions: int
    bronze: str
    holds: str

    def full_name(self, prefix: str) -> str:
        """`sim.crypto.trades.raw` for prefix `sim.`."""
        return f"{prefix}{self.name}"


TRADES = Topic("crypto.trades.raw", 4, "trades_raw", "every trade, heartbeat and control message of a trade feed")
TICKER = Topic("crypto.ticker.raw", 4, "ticker_raw", "best bid and ask")
PRICES = Topic("crypto.prices.raw", 1, "prices_raw", "aggregators' snapshots, one REST page a message")
CANDLES = Topic("crypto.candles.raw", 1, "candles_raw", "candles as a venue reports them, from history calls")
TOPICS = (TRADES, TICKER, PRICES, CANDLES)

ORIGINS = ("live", "simulated", "replay", "heal", "backfill")

# Header values are UTF-8 text. Times are integer microseconds since the epoch, UTC, written in decimal.
HEADERS = {
    "schema_version": "version of this header set; 1",
    "venue": "coinbase_exchange, coingecko, …",
    "channel": "the venue's channel or call: matches, ticker, markets, trades, candles",
    "received_at": "when the payload's last byte arrived here, µs since the epoch",
    "connection_id": "one id per WebSocket connection or poller process",
    "origin": "one of live, simulated, replay, heal, backfill",
    "request": "REST only: canonical path and sorted query, never a secret",
    "http_status": "REST only: decimal status",
    "product_id": "canonical product, where the payload is about one and does not say which",
    "vs_currency": "quote currency of an aggregator's page, where the payload does not say it",
    "interval": "length of a page's candles, 1m 5m 15m 1h 6h or 1d, where the payload does not say it",
    "poll_id": "REST polls only: one id for all pages of one poll",
    "poll_started_at": "when the poll's first request was sent, µs since the epoch",
    "page": "page number of the poll, from 1",
    "least_trade_id": "feeds only: product|id below which no trade of this message can be true, where one is",
    "reconstructed": "1 where the bytes were rebuilt from a capture and are not the venue's own",
    "original_length": "bytes of a payload of which only the first 1 MiB is kept",
    "sha256": "hex digest of the whole payload of which only the first 1 MiB is kept",
    "oversize": "1 where only the first 1 MiB is kept",
}


def message_key(venue: str, product_id: str | None) -> bytes:
    """`venue|product` where the payload is about one product, else `venue`."""
    return f"{venue}|{product_id}".encode() if product_id else venue.encode()
