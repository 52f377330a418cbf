"""One module a venue: subscribe, parse, poll, heal. A quirk of a venue never leaves its module; no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from marketflow.contracts.reasons import Reason, ignored_http
from marketflow.contracts.records import Ignored, Item, Outcome, Parsed, RejectedItem, Trade, Unparseable
from marketflow.contracts.sources import CCXT_PREFIX
from marketflow.venues import (
    binance,
    ccxt_trades,
    coinbase_advanced,
    coinbase_exchange,
    coincap,
    coingecko,
    cryptocompare,
)

__all__ = ["PARSERS", "parse"]

PARSERS: dict[str, Callable[[Mapping[str, str], bytes], Outcome]] = {
    binance.VENUE: binance.parse,
    coinbase_advanced.VENUE: coinbase_advanced.parse,
    coinbase_exchange.VENUE: coinbase_exchange.parse,
    coincap.VENUE: coincap.parse,
    coingecko.VENUE: coingecko.parse,
    cryptocompare.VENUE: cryptocompare.parse,
    # venue new: parser
}


def parse(headers: Mapping[str, str], value: bytes) -> Outcome:
    """What one Kafka record holds. The headers decide who parses it; no bytes and no headers make this raise."""
    if headers.get("oversize") == "1":
        length = headers.get("original_length", "unknown")
        return Unparseable(Reason.OVERSIZE, f"a payload of {length[:20]} bytes, of which the first 1 MiB is kept")
    status = headers.get("http_status")
    if status is not None and status != "200":
        if len(status) != 3 or not (status.isascii() and status.isdigit()):
            return Unparseable(Reason.BAD_HEADERS, f"header http_status is {ascii(status)[:80]}, not an HTTP status")
        return Ignored(ignored_http(int(status)))
    venue = headers.get("venue")
    if venue is None:
        return Unparseable(Reason.BAD_HEADERS, "header venue is missing")
    parser = ccxt_trades.parse if venue.startswith(CCXT_PREFIX) else PARSERS.get(venue)
    if parser is None:
        return Unparseable(Reason.UNSUPPORTED_VENUE, f"no parser for venue {ascii(venue)[:80]}")
    outcome = parser(headers, value)
    least = headers.get("least_trade_id")
    return outcome if least is None else _without_ids_below(outcome, least)


def _without_ids_below(outcome: Outcome, least: str) -> Outcome:
    """Refuse the trades whose id the feed knew to be too low; `least` is product|id."""
    product_id, _, text = least.rpartition("|")
    if not (product_id and text.isascii() and text.isdigit() and len(text) <= 19):
        return Unparseable(Reason.BAD_HEADERS, f"header least_trade_id is {ascii(least)[:80]}, not product|id")
    if not isinstance(outcome, Parsed):
        return outcome
    return Parsed(tuple(_refused_below(item, product_id, int(text)) for item in outcome.items))


def _refused_below(item: Item, product_id: str, least: int) -> Item:
    if not isinstance(item, Trade) or item.product_id != product_id or item.trade_id >= least:
        return item
    return RejectedItem(Reason.ID_WENT_BACK, f"trade_id {item.trade_id} is far below what was told before: {least}")
