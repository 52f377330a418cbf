"""Features and price metrics of files: the same kernels as the lake's, without Kafka, Spark or a server.

marketflow features build --trades FILE [--quotes FILE] --out FILE
marketflow metrics build --prices FILE --out FILE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from marketflow.contracts import gold, silver
from marketflow.errors import InputError
from marketflow.features import files, frames
from marketflow.features.prices import price_metrics
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.kernel import schema, trade_features
from marketflow.features.trades.tape import DISORDER, HORIZON, LOOKBACK, QUOTE_COLUMNS, QUOTES_BACK, TRADE_COLUMNS

CHUNK = 200_000
"""Trades computed at a time; memory grows with this and with the files, not with the number of features."""
MARKET = ("venue", "product_id")
OPTIONAL = ("sequence",)
OPTIONAL_QUOTES = ("sequence", "best_bid_size", "best_ask_size")
_PRICE_COLUMNS = (
    *("source", "asset_id", "vs_currency", "last_updated", "symbol", "name", "price"),
    *("market_cap", "market_cap_rank", "volume_24h", "polled_at"),
)
_PRICES_NEEDED = ("source", "asset_id", "vs_currency", "last_updated", "price")


@dataclass(slots=True)
class Built:
    """What became of one product's trades."""

    venue: str
    product_id: str
    trades: int
    rows: int = 0
    left_out: int = 0
    # of the rows those that found a quote; None without a file of quotes
    quoted: int | None = None

    def __str__(self) -> str:
        left_out = f", {self.left_out:,} left out ({LOOKBACK} trades before a row are needed)" if self.left_out else ""
        quoted = "" if self.quoted is None else f", {self.quoted:,} of them with a quote"
        return f"{self.venue} {self.product_id}: {self.trades:,} trades, {self.rows:,} rows{quoted}{left_out}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `build` wrote, and where."""

    out: Path
    rows: int
    products: list[Built] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"out": str(self.out), "rows": self.rows, "products": [asdict(one) for one in self.products]}


def build_features(
    trades: Path,
    out: Path,
    quotes: Path | None = None,
    *,
    keep_warmup: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Write features and targets of every product in a file of trades (columns of silver.trades), product by product.

    Rows with fewer than 500 trades before them are left out, as in gold.trade_features, and counted; `keep_warmup`
    keeps them, with nulls where a window is not full. Targets are null where fewer than 50 trades follow.

    Raises:
        InputError: a file cannot be read, or lacks a column; a quote is no quote, or contradicts another of its
            sequence; `out` cannot be written, or is one of the inputs.
        KernelError: the trades are none (a doubled id, a size of zero, an unknown taker's side).
    """
    files.check_place(out, trades, quotes)
    needed = tuple(name for name in TRADE_COLUMNS if name not in OPTIONAL)
    tape = files.read(trades, silver.TRADES, needed, OPTIONAL)
    book = None
    if quotes is not None:
        quoted = tuple(name for name in QUOTE_COLUMNS if name not in OPTIONAL_QUOTES)
        book = files.read(quotes, silver.QUOTES, quoted, OPTIONAL_QUOTES)
        _check_quotes(book, quotes)
    done: list[Built] = []

    def parts() -> Iterator[pl.DataFrame]:
        for market, own in tape.partition_by(MARKET, as_dict=True, maintain_order=True).items():
            built = Built(str(market[0]), str(market[1]), own.height, quoted=None if book is None else 0)
            done.append(built)
            mine = (
                None if book is None else book.filter(pl.col("venue") == market[0], pl.col("product_id") == market[1])
            )
            for rows in chunks(own, mine):
                kept = rows if keep_warmup else rows.filter(pl.col("history") >= LOOKBACK)
                built.rows += kept.height
                built.left_out += rows.height - kept.height
                if built.quoted is not None:
                    built.quoted += kept["quote_join"].count()
                yield kept
            say(str(built))

    if tape.is_empty():
        say(f"{trades}: no trades")
    rows = files.write(out, parts(), schema(CATALOGUE.values()))
    return Report(out, rows, done)


def _check_quotes(book: pl.DataFrame, path: Path) -> None:
    """Refuse what silver.quotes never holds."""
    negative = (pl.col(name) < 0 for name in ("best_bid_size", "best_ask_size"))
    wrong = book.filter(pl.any_horizontal(pl.col("best_bid") <= 0, pl.col("best_ask") <= 0, *negative))
    if wrong.height:
        raise InputError(
            f"{path}: the quote of {wrong.item(0, 'event_ts')} has a price that is not above zero, or a negative size "
            f"({wrong.height:,} such quotes)"
        )
    key = ("venue", "product_id", "sequence")
    told = book.filter(pl.col("sequence").is_not_null()).unique()
    doubled = told.filter(pl.struct(key).is_duplicated())
    if doubled.height:
        raise InputError(
            f"{path}: quotes of {doubled.item(0, 'product_id')} with sequence {doubled.item(0, 'sequence')} contradict "
            f"each other ({doubled.select(key).n_unique():,} such sequences)"
        )


def chunks(trades: pl.DataFrame, quotes: pl.DataFrame | None, size: int = CHUNK) -> Iterator[pl.DataFrame]:
    """`trade_features` of one product's trades, a chunk at a time, each with the rows around it that it needs."""
    ordered = trades.sort("trade_id")
    for start in range(0, ordered.height, size):
        first, last = max(0, start - LOOKBACK), min(ordered.height, start + size + HORIZON)
        rows = trade_features(ordered.slice(first, last - first), _around(ordered.slice(start, size), quotes))
        count = min(size, ordered.height - start)
        own = rows.slice(start - first, count)
        yield own.with_columns(history=(pl.int_range(pl.len(), dtype=pl.Int32) + start).clip(upper_bound=LOOKBACK))


def _around(trades: pl.DataFrame, quotes: pl.DataFrame | None) -> pl.DataFrame | None:
    """Quotes that can lie before one of these trades."""
    if quotes is None:
        return None
    first, last = trades["event_ts"].min(), trades["event_ts"].max()
    return quotes.filter(pl.col("event_ts").is_between(pl.lit(first) - QUOTES_BACK, pl.lit(last) + DISORDER))


def build_metrics(prices: Path, out: Path) -> Report:
    """Write the short-term measures of every observation in a file of prices (columns of silver.asset_prices).

    Raises:
        InputError: the file cannot be read, or lacks a column; `out` cannot be written, or is the file itself.
        KernelError: an observation occurs twice, or a price is not above zero.
    """
    files.check_place(out, prices)
    optional = tuple(name for name in _PRICE_COLUMNS if name not in _PRICES_NEEDED)
    measures = price_metrics(files.read(prices, silver.ASSET_PRICES, _PRICES_NEEDED, optional))
    return Report(out, files.write(out, [measures], frames.schema(gold.PRICE_METRICS)))
