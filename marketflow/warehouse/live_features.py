"""live.feature_latest: one batch of the query of trades and quotes, in one transaction.

New trades and quotes go into the tails, the first of a key wins; the tails are cut to what a newest trade can need and
read back, and the one kernel gives the newest trade's row. So a batch that comes twice or late, in any order, leaves
the row that the whole tape would have: the newest 501 of everything seen are the newest 501 of those of before and
those of the batch. A row is what it is on the whole tape where `history` is 500, and but for two things:

- a trade that arrives when its quote is more than QUOTES_KEPT older than the newest quote has none;
- a price or amount above LARGEST_AMOUNT, which the kernel refuses, never enters a tail: such a trade is a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from marketflow.contracts.columns import Table
from marketflow.contracts.live import FEATURE_LATEST, QUOTE_TAIL, TRADE_TAIL
from marketflow.features.trades.kernel import trade_features
from marketflow.features.trades.tape import DISORDER, LARGEST_AMOUNT, LOOKBACK, QUOTE_AGE_LIMIT_MS, QUOTES_BACK
from marketflow.warehouse.live_batch import Connection, begin, frame, insert_new, upsert

KEPT_TRADES = LOOKBACK + 1
# of a product whose trades are silent: as long as a lost last trade may take to be healed
QUOTES_KEPT = timedelta(minutes=15)
# a trade that is yet to come may be so much earlier than the newest one known, and its quotes lie that far back
_QUOTES_BEHIND = QUOTES_BACK + DISORDER
_AGE_LIMIT = timedelta(milliseconds=QUOTE_AGE_LIMIT_MS)
_MARKET = ("venue", "product_id")
_ASKED = "unnest(%(venues)s::text[], %(products)s::text[]) as asked (venue, product_id)"
Market = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed; `repeated` where it had been written before and nothing was done."""

    trades: int = 0
    quotes: int = 0
    rows: int = 0
    repeated: bool = False


def newest(trades: pl.DataFrame) -> pl.DataFrame:
    """Of trades in the order of their arrival those that can be in a tail: the first of an id, the highest ids."""
    place = pl.col("trade_id").rank("ordinal", descending=True).over(_MARKET)
    return _within_reach(trades, ("price", "size")).unique(TRADE_TAIL.key, keep="first").filter(place <= KEPT_TRADES)


def recent(quotes: pl.DataFrame, trades: pl.DataFrame | None = None) -> pl.DataFrame:
    """Of quotes in the order of their arrival those that they, and these trades, do not show to be too old."""
    amounts = ("best_bid", "best_bid_size", "best_ask", "best_ask_size")
    first = pl.col("event_ts").max().over(_MARKET) - QUOTES_KEPT
    kept = _within_reach(quotes, amounts).filter(pl.col("event_ts") >= first)
    if trades is None or trades.is_empty():
        return kept
    last_trade = trades.group_by(_MARKET).agg(pl.col("event_ts").max().alias("last_trade"))
    is_old = pl.col("event_ts") < pl.col("last_trade") - _QUOTES_BEHIND
    joined = kept.join(last_trade, on=_MARKET, how="left", maintain_order="left")
    return joined.filter(~is_old.fill_null(False)).drop("last_trade")


def _within_reach(rows: pl.DataFrame, amounts: Iterable[str]) -> pl.DataFrame:
    beyond = [pl.col(name).abs() > LARGEST_AMOUNT for name in amounts]
    return rows.filter(~pl.any_horizontal(beyond).fill_null(False))


def write_batch(
    connection: Connection, query: str, batch_id: int, trades: pl.DataFrame, quotes: pl.DataFrame
) -> Written:
    """Write one batch and record its number, in the transaction of `connection`, which the caller commits.

    `trades` and `quotes` have the columns of live.trade_tail and live.quote_tail and come in the order of their
    arrival; none is of a venue whose trades are not numbered one by one. `query` is as in `live_batch.begin`.
    """
    if not begin(connection, query, batch_id):
        return Written(repeated=True)
    kept = newest(trades)
    new_trades = _insert(connection, TRADE_TAIL, kept)
    new_quotes = _insert(connection, QUOTE_TAIL, recent(quotes, kept))
    touched = sorted({*new_trades.rows(), *new_quotes.rows()})
    if not touched:
        return Written()
    _prune(connection, touched)
    rows = _rows(connection, touched)
    if not rows.is_empty():
        upsert(connection, FEATURE_LATEST, rows)
    return Written(new_trades.height, new_quotes.height, rows.height)


def _insert(connection: Connection, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    if rows.is_empty():
        return rows.select(_MARKET)
    return insert_new(connection, table, rows.select(table.column_names).rows(), _MARKET)


def _asked(markets: Sequence[Market]) -> dict[str, list[str]]:
    return {"venues": [venue for venue, _ in markets], "products": [product for _, product in markets]}


def _prune(connection: Connection, markets: Sequence[Market]) -> None:
    """Cut the tails of these products to what their newest trade, and one yet to come, can need.

    `materialized`: else PostgreSQL looks for a product's border once for each of its rows.
    """
    connection.execute(
        "with kept as materialized ("  # noqa: S608 - literal names
        f"select asked.venue, asked.product_id, lowest.trade_id from {_ASKED} cross join lateral ("
        "select trade_id from live.trade_tail where venue = asked.venue and product_id = asked.product_id "
        "order by trade_id desc offset %(before)s limit 1) as lowest) "
        "delete from live.trade_tail as tail using kept "
        "where tail.venue = kept.venue and tail.product_id = kept.product_id and tail.trade_id < kept.trade_id",
        _asked(markets) | {"before": LOOKBACK},
    )
    of_product = "where venue = asked.venue and product_id = asked.product_id"
    connection.execute(
        "with kept as materialized ("  # noqa: S608 - literal names
        "select asked.venue, asked.product_id, greatest("
        f"(select max(event_ts) from live.trade_tail {of_product}) - %(behind)s, "
        f"(select max(event_ts) from live.quote_tail {of_product}) - %(kept)s) as first from {_ASKED}) "
        "delete from live.quote_tail as tail using kept "
        "where tail.venue = kept.venue and tail.product_id = kept.product_id and tail.event_ts < kept.first",
        _asked(markets) | {"behind": _QUOTES_BEHIND, "kept": QUOTES_KEPT},
    )


def _rows(connection: Connection, markets: Sequence[Market]) -> pl.DataFrame:
    """The newest trade's row of each product that has a trade."""
    trades = frame(
        connection.execute(
            f"select {_names(TRADE_TAIL)} from {_ASKED} "  # noqa: S608 - the contract's own names
            "join live.trade_tail as tail using (venue, product_id) order by venue, product_id, trade_id",
            _asked(markets),
        ).fetchall(),
        TRADE_TAIL,
    )
    if trades.is_empty():
        return trades
    last = trades.group_by(_MARKET, maintain_order=True).last()
    books = _books(connection, last)
    rows = [
        trade_features(tape, books.get((tape.item(0, "venue"), tape.item(0, "product_id"))))
        .tail(1)
        .with_columns(received_at=tape.tail(1)["received_at"])
        for tape in trades.partition_by(_MARKET, maintain_order=True)
    ]
    at = connection.execute("select now()").fetchall()[0][0]
    return pl.concat(rows).with_columns(written_at=pl.lit(at)).select(FEATURE_LATEST.column_names)


def _books(connection: Connection, last: pl.DataFrame) -> dict[Market, pl.DataFrame]:
    """Each product's quotes that decide what its newest trade saw: a few seconds of them, and one more.

    A quote beyond the age limit tells nothing but that it is too old; of those the last before the trade by sequence
    must be there, or an earlier one that has a later time would be taken for it.
    """
    of_product = "where tail.venue = asked.venue and tail.product_id = asked.product_id"
    asked = {name: last[name].to_list() for name in (*_MARKET, "event_ts", "sequence")}
    quotes = frame(
        connection.execute(
            f"select {_names(QUOTE_TAIL)} from unnest(%(venue)s::text[], %(product_id)s::text[], "  # noqa: S608 - the contract's own names
            "%(event_ts)s::timestamptz[], %(sequence)s::bigint[]) as asked (venue, product_id, newest, below) "
            f"cross join lateral ((select tail.* from live.quote_tail as tail {of_product} "
            "and tail.event_ts between asked.newest - %(age)s and asked.newest + %(ahead)s) "
            f"union all (select tail.* from live.quote_tail as tail {of_product} "
            "and tail.sequence < asked.below and tail.event_ts < asked.newest - %(age)s "
            "order by tail.sequence desc limit 1)) as tail",
            asked | {"age": _AGE_LIMIT, "ahead": DISORDER},
        ).fetchall(),
        QUOTE_TAIL,
    )
    return {(book.item(0, "venue"), book.item(0, "product_id")): book for book in quotes.partition_by(_MARKET)}


def _names(table: Table) -> str:
    return ", ".join(f"tail.{name}" for name in table.column_names)
