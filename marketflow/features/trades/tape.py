"""A product's trades in order, with the quote before each, in the columns that features are made of."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from marketflow.contracts.columns import MONEY_SCALE
from marketflow.contracts.sources import numbers_each_trade
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.trades.amounts import price, reduced, size

LOOKBACK = 500
"""Trades before its own that a row of gold has, and no feature reads further."""
HORIZON = 50
"""Trades after its own that a target may wait for."""
QUOTE_AGE_LIMIT_MS = 5_000
# sums of 500 such amounts stay within 128 bits
LARGEST_AMOUNT = 10**17
# how far a venue's times may run against its ids and sequences: one of a higher id is never this much earlier
DISORDER = timedelta(seconds=60)
QUOTES_BACK = timedelta(milliseconds=QUOTE_AGE_LIMIT_MS) + DISORDER
"""Quotes that much older than a trade must be there, so that the last before it is known."""
TRADE_COLUMNS = ("venue", "product_id", "trade_id", "price", "size", "taker_side", "event_ts", "sequence")
QUOTE_COLUMNS = (
    *("venue", "product_id", "sequence", "event_ts"),
    *("best_bid", "best_bid_size", "best_ask", "best_ask_size"),
)
_MARKET = ("venue", "product_id")
_BOOK_UNITS = ("bid_units", "ask_units", "bid_size_units", "ask_size_units")


def ago(column: str, trades: int) -> pl.Expr:
    """The column's value so many trades before."""
    return pl.col(column).shift(trades)


def tape(trades: pl.DataFrame, quotes: pl.DataFrame | None) -> pl.DataFrame:
    """Order, check and prepare; the columns of silver.trades and silver.quotes, in any order.

    Raises:
        KernelError: trades of two products, a trade_id twice, an amount that is not above zero or too large, a
            taker_side other than buy or sell, a null where the contract allows none, or a venue that does not number
            its trades one by one.
    """
    ordered = _ordered(trades)
    _check(ordered)
    return _prepared(_with_quotes(ordered, quotes))


def _ordered(trades: pl.DataFrame) -> pl.DataFrame:
    return trades.select(
        *("venue", "product_id", "trade_id"),
        *(pl.col(name).cast(frames.MONEY).alias(f"{name}_exact") for name in ("price", "size")),
        *(_whole(name).alias(f"{name}_units") for name in ("price", "size")),
        "taker_side",
        pl.col("event_ts").cast(frames.TIMESTAMP),
        "sequence",
    ).sort("trade_id")


def _check(ordered: pl.DataFrame) -> None:
    for name in ordered.columns:
        if name != "sequence" and ordered[name].null_count():
            missing = ordered.filter(pl.col(name).is_null())
            what, of = name.partition("_exact")[0], f" of trade {missing.item(0, 'trade_id')}"
            which = "" if name in (*_MARKET, "trade_id") else of
            raise KernelError(f"{what}{which} is null ({missing.height:,} such trades)")
    markets = ordered.select(_MARKET).unique().sort(_MARKET)
    if markets.height > 1:
        raise KernelError(f"a tape is of one product, not of {markets.rows()}")
    venue = ordered.item(0, "venue")
    if not numbers_each_trade(venue):
        raise KernelError(f"{venue} does not number its trades one by one: whether one is missing cannot be known")
    doubled = ordered.filter(pl.col("trade_id").diff() == 0)
    if doubled.height:
        raise KernelError(f"trade {markets.row(0)} {doubled.item(0, 'trade_id')} occurs twice")
    for name in ("price", "size"):
        wrong = ordered.filter(~pl.col(f"{name}_units").is_between(1, LARGEST_AMOUNT * 10**MONEY_SCALE))
        if wrong.height:
            raise KernelError(
                f"{name} of trade {wrong.item(0, 'trade_id')} is {wrong.item(0, f'{name}_units') / 10**MONEY_SCALE:g}: "
                f"it must be above zero and at most {LARGEST_AMOUNT:g} ({wrong.height:,} such trades)"
            )
    unsided = ordered.filter(~pl.col("taker_side").is_in(["buy", "sell"]))
    if unsided.height:
        raise KernelError(
            f"taker_side of trade {unsided.item(0, 'trade_id')} is {unsided.item(0, 'taker_side')!r}: "
            f"it must be buy or sell ({unsided.height:,} such trades)"
        )


def _with_quotes(ordered: pl.DataFrame, quotes: pl.DataFrame | None) -> pl.DataFrame:
    """The last quote strictly before each trade, where it is neither older than the limit nor later than the trade.

    Before is a lower sequence where both have one (the quote of the trade's own sequence shows the book after it), else
    an earlier event_ts; of one found by each, the later. `quote_is_later` tells the trades whose last quote by
    sequence bears a later time than they: the clocks contradict the order, so the quote is null.
    """
    book = _book(ordered, quotes)
    trades = ordered.with_columns(event_us=pl.col("event_ts").to_physical()).with_row_index("row")
    has_sequence = pl.col("sequence").is_not_null()
    numbered, unnumbered = book.filter(has_sequence), book.filter(~has_sequence)
    found = pl.concat(
        [
            _last_before(trades.filter(has_sequence), numbered, "sequence"),
            _last_before(trades.filter(has_sequence), unnumbered, "event_us"),
            _last_before(trades.filter(~has_sequence), book, "event_us"),
        ]
    )
    # of two with the same time the one found by sequence, which comes first
    latest = found.sort("row", "quote_us", maintain_order=True, descending=[False, True]).unique(
        "row", keep="first", maintain_order=True
    )
    joined = trades.join(latest, on="row", how="left", maintain_order="left").drop("row")
    age = pl.col("event_us") - pl.col("quote_us")
    is_known = age.is_between(0, QUOTE_AGE_LIMIT_MS * 1000)
    return joined.with_columns(
        *(pl.when(is_known).then(name).alias(name) for name in (*_BOOK_UNITS, "quote_join")),
        quote_age_us=pl.when(is_known).then(age),
        quote_is_later=(age < 0).fill_null(False),
    ).drop("quote_us")


def _last_before(trades: pl.DataFrame, book: pl.DataFrame, key: str) -> pl.DataFrame:
    """For each trade that has one its last quote below it by this key."""
    rows = trades.select("row", key).sort(key)
    # of quotes of one time the highest sequence was last, in whatever order they are given
    by = list(dict.fromkeys((key, "event_us", "sequence")))
    ordered = book.sort(by, nulls_last=False)
    if ordered.height > 1 and (ordered.select(pl.struct(by).rle_id()).item(-1, 0) + 1) < ordered.height:
        # nothing tells which of them was last: always the same one, then
        ordered = book.sort([*by, *_BOOK_UNITS], nulls_last=False)
    listed = ordered.select(pl.col(key), pl.col("event_us").alias("quote_us"), *_BOOK_UNITS)
    joined = rows.join_asof(listed, on=key, strategy="backward", allow_exact_matches=False)
    how = "event_ts" if key == "event_us" else key
    return joined.filter(pl.col("quote_us").is_not_null()).drop(key).with_columns(quote_join=pl.lit(how))


def _book(ordered: pl.DataFrame, quotes: pl.DataFrame | None) -> pl.DataFrame:
    """The product's quotes in units."""
    empty = pl.DataFrame(
        schema={
            "sequence": pl.Int64,
            "event_us": pl.Int64,
            **dict.fromkeys(_BOOK_UNITS, pl.Int128),
        }
    )
    if quotes is None or quotes.is_empty():
        return empty
    market = dict(zip(_MARKET, ordered.select(_MARKET).row(0), strict=True))
    book = quotes.filter(*(pl.col(name) == value for name, value in market.items())).select(
        "sequence",
        pl.col("event_ts").cast(frames.TIMESTAMP).to_physical().alias("event_us"),
        _whole("best_bid").alias("bid_units"),
        _whole("best_ask").alias("ask_units"),
        _whole("best_bid_size").alias("bid_size_units"),
        _whole("best_ask_size").alias("ask_size_units"),
    )
    too_large = book.filter(pl.any_horizontal(pl.col(*_BOOK_UNITS).abs() > LARGEST_AMOUNT * 10**MONEY_SCALE))
    if too_large.height:
        raise KernelError(
            f"a quote of {market['product_id']} has an amount above {LARGEST_AMOUNT:g} ({too_large.height:,} such)"
        )
    return book


def _whole(column: str) -> pl.Expr:
    """Whole numbers of 10^-18."""
    return pl.col(column).cast(frames.MONEY).to_physical()


def _prepared(quoted: pl.DataFrame) -> pl.DataFrame:
    """What features are made of, beside the trade's own columns."""
    whole = reduced(quoted, "price", ("price_units", "bid_units", "ask_units"))
    whole = reduced(whole, "size", ("size_units", "bid_size_units", "ask_size_units"))
    is_buy = pl.col("taker_side") == "buy"
    prepared = whole.with_columns(
        price=price(pl.col("price_units")),
        size=size(pl.col("size_units")),
        change_units=pl.col("price_units").diff(),
        change=price(pl.col("price_units").diff()),
        is_buy=is_buy,
        buys=is_buy.cast(pl.Int32),
        bought_units=pl.when(is_buy).then("size_units").otherwise(0),
        signed_units=pl.when(is_buy).then(2 * pl.col("size_units")).otherwise(0) - pl.col("size_units"),
        gap=(pl.col("trade_id").diff() > 1).cast(pl.Int32),
        run_length=_run_length(),
    )
    log_return = _log_return()
    return prepared.with_columns(
        notional=pl.col("price") * pl.col("size"),
        log_return=log_return,
        squared_return=log_return.pow(2),
        gain=_positive(pl.col("change")),
        loss=_positive(-pl.col("change")),
        illiquidity=log_return.abs() / (pl.col("price") * pl.col("size")),
    )


def _log_return() -> pl.Expr:
    """ln(p / previous p): near 1 from the exact change, far from it from the ratio, where each keeps its digits."""
    before = pl.col("price").shift(1)
    change = pl.col("change") / before
    return pl.when(change.abs() < 0.5).then(change.log1p()).otherwise((pl.col("price") / before).log())


def _positive(value: pl.Expr) -> pl.Expr:
    """The value where it is above zero, else zero; null where it is null."""
    return pl.when(value > 0).then(value).when(value.is_not_null()).then(0.0)


def _run_length() -> pl.Expr:
    """Trades since the taker's side last changed, this one included."""
    row, side = pl.int_range(pl.len(), dtype=pl.Int32), pl.col("taker_side")
    begins = pl.when(side.ne_missing(side.shift(1))).then(row)
    return row - begins.forward_fill() + 1
