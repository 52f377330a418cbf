"""One module a venue: subscribe, parse, poll, heal. A quirk of a venue never leaves its module; no Kafka, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from marketflow.contracts.reasons import Reason, ignored_http
from marketflow.contracts.records import Ignored, Outcome, Unparseable
from marketflow.venues import binance, coinbase_advanced, coinbase_exchange, coincap, coingecko, cryptocompare

__all__ = ["PARSERS", "parse"]

PARSERS: dict[str, Callable[[Mapping[str, str], bytes], Outcome]] = {
    binance.VENUE: binance.parse,
    coinbase_advanced.VENUE: coinbase_advanced.parse,
    coinbase_exchange.VENUE: coinbase_exchange.parse,
    coincap.VENUE: coincap.parse,
    coingecko.VENUE: coingecko.parse,
    cryptocompare.VENUE: cryptocompare.parse,
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
    parser = PARSERS.get(venue)
    if parser is None:
        return Unparseable(Reason.UNSUPPORTED_VENUE, f"no parser for venue {ascii(venue)[:80]}")
    return parser(headers, value)
