"""Who took, held against what the captures themselves say: the ticker's own side, and the book before the trade."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.records import Parsed, Quote, Trade
from marketflow.ingest.replay import Options, prepared

CAPTURE = (
    Path(__file__).parents[2]
    / "fixtures"
    / "captures"
    / "coinbase"
    / "cryptofeed-exchange-2021-04-17.match-ticker.ndjson"
)


@pytest.fixture(scope="module")
def capture() -> tuple[list[Trade], dict[str, list[Quote]]]:
    """Trades, and quotes by product, of ten small pairs on Coinbase Exchange."""
    trades: list[Trade] = []
    quotes: dict[str, list[Quote]] = defaultdict(list)
    for message in prepared(CAPTURE, "coinbase_exchange", Options()):
        outcome = venues.parse(message.headers, message.value)
        assert isinstance(outcome, Parsed)
        for item in outcome.items:
            if isinstance(item, Trade):
                trades.append(item)
            elif isinstance(item, Quote):
                quotes[item.product_id].append(item)
    return trades, quotes


def book_before(trade: Trade, quotes: dict[str, list[Quote]]) -> Quote | None:
    """The quote of the highest sequence below the trade's: the ticker of the trade itself shows the book after it."""
    assert trade.sequence is not None
    earlier = [quote for quote in quotes[trade.product_id] if quote.sequence and quote.sequence < trade.sequence]
    return max(earlier, key=lambda quote: quote.sequence or 0, default=None)


def test_the_takers_side_agrees_with_the_book_before_the_trade_in_91_of_97(
    capture: tuple[list[Trade], dict[str, list[Quote]]],
) -> None:
    """At or above the mid the taker bought; of the six others the capture does not say why."""
    trades, quotes = capture
    judged = [(trade, book) for trade in trades if (book := book_before(trade, quotes)) is not None]
    agreeing = [
        trade
        for trade, book in judged
        if trade.taker_side == ("buy" if trade.price >= (book.best_bid + book.best_ask) / 2 else "sell")
    ]
    assert (len(trades), len(judged), len(agreeing)) == (107, 97, 91)


def test_the_feeds_own_word_for_the_side_is_the_makers_on_every_pair(
    capture: tuple[list[Trade], dict[str, list[Quote]]],
) -> None:
    trades, _ = capture
    assert all(trade.side_raw != trade.taker_side for trade in trades)
