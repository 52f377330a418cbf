"""What parsing costs: microseconds a message, by venue and kind, on carried captures and on messages of their shape.

One process, one core; each sample is parsed again and again for a second, the best of five rounds counts, since what
disturbs a round only makes it slower. Writes benchmarks/results/parsers.json.

    .venv/bin/python -m benchmarks.parsers
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results_file import write
from marketflow import venues
from marketflow.contracts.records import Parsed
from marketflow.ingest.replay import Options, prepared

CAPTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "captures"
ROUNDS, ROUND_S = 5, 1.0
RECEIVED = {"received_at": "1783465200000000"}
ENVELOPE = (
    '{"channel":"market_trades","client_id":"","timestamp":"2025-12-31T06:00:12.516946132Z","sequence_num":1851,'
    '"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"929248657","price":"88355.59",'
    '"size":"0.00136573","time":"2025-12-31T06:00:12.44524Z","side":"SELL"}]}]}'
)
BOOK = '{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}'

Message = tuple[Mapping[str, str], bytes]


def captured(name: str, venue: str, channel: str) -> list[Message]:
    """The messages of a capture that are of one channel and hold rows."""
    path = CAPTURES / name
    options = Options(vs_currency="usd")
    found = [(m.headers, m.value) for m in prepared(path, venue, options) if m.headers["channel"] == channel]
    return [one for one in found if isinstance(venues.parse(*one), Parsed)]


def samples() -> dict[str, list[Message]]:
    """By venue and kind."""
    matches = "coinbase/exchange-matches-btc-eth-2026-07-07.filtered.ndjson"
    tickers = "coinbase/cryptofeed-exchange-2021-04-17.match-ticker.ndjson"
    return {
        "coinbase_exchange match": captured(matches, "coinbase_exchange", "matches"),
        "coinbase_exchange ticker": captured(tickers, "coinbase_exchange", "ticker"),
        "coinbase_advanced market_trades, one trade": [
            ({**RECEIVED, "venue": "coinbase_advanced", "channel": "market_trades"}, ENVELOPE.encode())
        ],
        "binance trade": captured("binance/ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson", "binance", "trade"),
        "binance bookTicker": [({**RECEIVED, "venue": "binance", "channel": "bookTicker"}, BOOK.encode())],
        "coingecko page of 15 coins": captured("coingecko/markets-2022-01-rank6-20.json", "coingecko", "markets"),
    }


def microseconds(messages: Sequence[Message]) -> float:
    """The best round's mean of one message."""
    parse, best = venues.parse, float("inf")
    for _ in range(ROUNDS):
        count, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < ROUND_S:
            for headers, value in messages:
                parse(headers, value)
            count += len(messages)
        best = min(best, elapsed / count)
    return best * 1e6


def main() -> None:
    """Measure each and write them down."""
    found = {}
    for name, messages in samples().items():
        found[name] = round(microseconds(messages), 2)
        print(f"{found[name]:8.2f} µs  {name}", flush=True)
    print(f"wrote {write('parsers', {'microseconds_per_message': found, 'rounds': ROUNDS, 'round_s': ROUND_S})}")


if __name__ == "__main__":
    main()
