"""Trades out of a recorder's Parquet, rebuilt as the messages that their venue's feed sends; each is marked as rebuilt.

A row's columns may have any of the names that recorders give them. Which side a column `side` means is the venue's own
custom: Coinbase says the maker's, recorders of Binance write the taker's (checked on the carried tape: after a change
of side, 199 of 216 buys are above the trade before and 210 of 216 sells below). `taker_side` is the taker's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.errors import ConfigurationError
from marketflow.ingest.captured import Captured, time_us
from marketflow.venues import binance, coinbase_exchange

# the first of these columns that is there
_COLUMNS = {
    "trade_id": ("trade_id", "id", "t"),
    "price": ("price", "p"),
    "size": ("size", "qty", "quantity", "amount", "q"),
    "event": ("event_ts", "time", "exch_ts_ms", "T", "timestamp", "ts_ms"),
    "received": ("received_at", "received_at_us", "ts_ms", "recv_ts", "local_timestamp"),
    "product": ("product_id", "instrument_canon", "product"),
    "symbol": ("symbol", "s"),
    "buyer_is_maker": ("isBuyerMaker", "is_buyer_maker", "m"),
}
_VENUE_NAMES = {"coinbase": coinbase_exchange.VENUE}
_OTHER_SIDE = {"buy": "sell", "sell": "buy"}


def read(path: Path, venue: str | None, product_id: str | None) -> Iterator[Captured]:
    """The rows as messages, in the file's order.

    Raises:
        ConfigurationError: it is no Parquet file, or lacks a column that a trade of its venue needs.
    """
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"{path} is no Parquet file: {error}") from error
    names = set(file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=10_000):
        for row in batch.to_pylist():
            said = str(row.get("venue") or "").lower()
            row_venue = _VENUE_NAMES.get(said, said) or venue
            headers = {"channel": "trades"} if row_venue is None else {"channel": "trades", "venue": row_venue}
            received = time_us(_column(row, "received")) or time_us(_column(row, "event"))
            if received is not None:
                headers["received_at"] = str(received)
            if row_venue == coinbase_exchange.VENUE:
                value = _coinbase_match(_Trade(path, names, row), product_id)
                headers["channel"] = "matches"
            elif row_venue == binance.VENUE:
                value = _binance_trade(_Trade(path, names, row))
                headers["channel"] = "trade"
            else:
                value = msgspec.json.encode(row)
            yield Captured(value, headers, reconstructed=True)


def _column(row: Mapping[str, Any], meaning: str) -> Any:
    return next((row[name] for name in _COLUMNS[meaning] if row.get(name) is not None), None)


class _Trade:
    """What every trade has, out of a row; a ConfigurationError names the file and its columns where it is missing."""

    def __init__(self, path: Path, names: set[str], row: Mapping[str, Any]) -> None:
        event = time_us(_column(row, "event"))
        needed = {meaning: _column(row, meaning) for meaning in ("trade_id", "price", "size")}
        self.buyer_is_maker: bool | None = _column(row, "buyer_is_maker")
        self.side_column = next((name for name in ("side_raw", "side", "taker_side") if row.get(name)), None)
        sided = self.side_column is not None or self.buyer_is_maker is not None
        if event is None or not sided or None in needed.values():
            raise ConfigurationError(
                f"{path}: a trades Parquet needs trade_id, price, size, side and time; has {sorted(names)}"
            )
        self.path, self.row, self.event_us = path, row, event
        self.trade_id = int(str(needed["trade_id"]))
        self.price, self.size = format_number(needed["price"]), format_number(needed["size"])

    @property
    def side(self) -> str:
        """The side as the row has it, in lower case."""
        return str(self.row[self.side_column]).lower() if self.side_column else ""


def _coinbase_match(trade: _Trade, product_id: str | None) -> bytes:
    """A match message. `side` and `side_raw` are the maker's, as the venue has it; taker_side is flipped."""
    product = _column(trade.row, "product") or product_id
    if product is None:
        raise ConfigurationError(f"{trade.path}: no column {' or '.join(_COLUMNS['product'])}: name it with --product")
    side = _OTHER_SIDE.get(trade.side, trade.side) if trade.side_column == "taker_side" else trade.side
    seconds, micros = divmod(trade.event_us, 1_000_000)
    time_text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    message = {
        "type": "match",
        "trade_id": trade.trade_id,
        "side": side,
        "size": trade.size,
        "price": trade.price,
        "product_id": str(product),
        "time": f"{time_text}.{micros:06d}Z",
    }
    if trade.row.get("sequence") is not None:
        message["sequence"] = int(trade.row["sequence"])
    return msgspec.json.encode(message)


def _binance_trade(trade: _Trade) -> bytes:
    """A trade message of a stream; `side` is the taker's, so the buyer is the maker where it is sell."""
    symbol = _column(trade.row, "symbol")
    if symbol is None:
        raise ConfigurationError(f"{trade.path}: no column {' or '.join(_COLUMNS['symbol'])}, the venue's own symbol")
    if trade.buyer_is_maker is None and trade.side not in _OTHER_SIDE:
        raise ConfigurationError(f"{trade.path}: {trade.side_column} is {trade.side!r}, neither buy nor sell")
    maker = trade.buyer_is_maker if trade.buyer_is_maker is not None else trade.side == "sell"
    exact = trade.event_us % 1000 == 0
    time = trade.event_us // 1000 if exact else trade.event_us
    return msgspec.json.encode(
        {
            "e": "trade",
            "E": time,
            "s": str(symbol),
            "t": trade.trade_id,
            "p": trade.price,
            "q": trade.size,
            "T": time,
            "m": bool(maker),
            "M": True,
        }
    )


def format_number(value: object) -> str:
    """A number as the venues write it: no exponent."""
    return format(Decimal(str(value)), "f")
