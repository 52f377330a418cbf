"""The top of the book strictly before the trade."""

from __future__ import annotations

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features.trades.amounts import price, quotient, size
from marketflow.features.trades.feature import feature

INPUTS = ("price", "taker_side", "event_ts", "sequence", "quotes")
_PRICE = pl.col("price_units")
_BID, _ASK = pl.col("bid_units"), pl.col("ask_units")
_BID_SIZE, _ASK_SIZE = pl.col("bid_size_units"), pl.col("ask_size_units")


@feature("best_bid", group="quotes", inputs=INPUTS)
def best_bid() -> pl.Expr:
    """Highest bid before the trade.

    Formula: best_bid of the last quote strictly before: of lower sequence, or of earlier event_ts (quote_join).
    Unit: quote currency.
    Null: without such a quote, and where it is older than 5 s or later than the trade.
    Source: by definition.
    """
    return price(_BID)


@feature("best_ask", group="quotes", inputs=INPUTS)
def best_ask() -> pl.Expr:
    """Lowest ask before the trade.

    Formula: best_ask of the same quote as best_bid.
    Unit: quote currency.
    Null: as best_bid.
    Source: by definition.
    """
    return price(_ASK)


@feature("mid_price", group="quotes", inputs=INPUTS)
def mid_price() -> pl.Expr:
    """Middle of the spread before the trade.

    Formula: (best_bid + best_ask) / 2.
    Unit: quote currency.
    Null: as best_bid.
    Source: by definition.
    """
    return price(_BID + _ASK) / 2


@feature("microprice", group="quotes", inputs=INPUTS)
def microprice() -> pl.Expr:
    """Middle of the spread weighed by the amounts on the other side.

    Formula: (best_bid·ask size + best_ask·bid size) / (bid size + ask size).
    Unit: quote currency.
    Null: as best_bid, and where the venue tells no sizes or both are zero.
    Source: Gatheral and Oomen (2010).
    """
    share = quotient(size(_BID_SIZE), size(_BID_SIZE + _ASK_SIZE))
    return price(_BID) + share * price(_ASK - _BID)


@feature("bid_ask_spread", group="quotes", inputs=INPUTS)
def bid_ask_spread() -> pl.Expr:
    """Distance between the best ask and the best bid before the trade; negative where the book was crossed.

    Formula: best_ask − best_bid.
    Unit: quote currency.
    Null: as best_bid.
    Source: by definition.
    """
    return price(_ASK - _BID)


@feature("spread_pct", group="quotes", inputs=INPUTS)
def spread_percent() -> pl.Expr:
    """The spread against the middle.

    Formula: 100·(best_ask − best_bid) / mid_price.
    Unit: percent.
    Null: as best_bid.
    Source: by definition.
    """
    return 200 * quotient(price(_ASK - _BID), price(_ASK + _BID))


@feature("spread_bps", group="quotes", inputs=INPUTS)
def spread_basis_points() -> pl.Expr:
    """The spread against the middle, in basis points.

    Formula: 10,000·(best_ask − best_bid) / mid_price.
    Unit: basis points.
    Null: as best_bid.
    Source: by definition.
    """
    return 20_000 * quotient(price(_ASK - _BID), price(_ASK + _BID))


@feature("book_imbalance", group="quotes", inputs=INPUTS)
def book_imbalance() -> pl.Expr:
    """Signed share of the amounts at the top of the book.

    Formula: (bid size − ask size) / (bid size + ask size).
    Unit: none, −1 (all asks) to 1 (all bids).
    Null: as best_bid, and where the venue tells no sizes or both are zero.
    Source: Cartea, Jaimungal and Penalva (2015), volume imbalance at the touch.
    """
    return quotient(size(_BID_SIZE - _ASK_SIZE), size(_BID_SIZE + _ASK_SIZE))


@feature("price_vs_bid", group="quotes", inputs=INPUTS)
def price_against_bid() -> pl.Expr:
    """How far the trade's price lies above the best bid.

    Formula: 100·(price / best_bid − 1).
    Unit: percent.
    Null: as best_bid, and where the bid is zero.
    Source: by definition.
    """
    return 100 * quotient(price(_PRICE - _BID), price(_BID))


@feature("price_vs_ask", group="quotes", inputs=INPUTS)
def price_against_ask() -> pl.Expr:
    """How far the trade's price lies above the best ask.

    Formula: 100·(price / best_ask − 1).
    Unit: percent.
    Null: as best_bid, and where the ask is zero.
    Source: by definition.
    """
    return 100 * quotient(price(_PRICE - _ASK), price(_ASK))


@feature("effective_spread_bps", group="quotes", inputs=INPUTS)
def effective_spread() -> pl.Expr:
    """What the taker paid for crossing, both ways; negative where the price was better than the middle.

    Formula: 20,000·d·(price − mid_price) / mid_price, d = 1 where the taker bought, −1 where it sold.
    Unit: basis points.
    Null: as best_bid.
    Source: Huang and Stoll (1996).
    """
    sign = pl.when("is_buy").then(1.0).otherwise(-1.0)
    return 20_000 * sign * quotient(price(2 * _PRICE - _BID - _ASK), price(_BID + _ASK))


@feature("quote_age_ms", group="quotes", inputs=INPUTS)
def quote_age() -> pl.Expr:
    """How old the quote was when the trade happened.

    Formula: event_ts of the trade − event_ts of the quote.
    Unit: milliseconds.
    Null: as best_bid; never negative, never above 5,000.
    Source: by definition.
    """
    return pl.col("quote_age_us") / 1000


@feature("quote_join", group="quotes", inputs=INPUTS, type=Type.STRING)
def quote_join() -> pl.Expr:
    """By what the quote was found to be before the trade: sequence, where both have one, or event_ts.

    Formula: by definition.
    Unit: none.
    Null: as best_bid.
    Source: by definition.
    """
    return pl.col("quote_join")
