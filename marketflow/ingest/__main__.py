"""`python -m marketflow.ingest VENUE`: one producer process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from marketflow import settings as configuration
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.ingest.feed import CoinbaseFeed, open_write
from marketflow.ingest.gaps import Gap, GapTracker
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.poller import CoinGeckoPoller
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.quotas import (
    COINGECKO_PLANS,
    Budget,
    calls_per_poll,
    check_coingecko,
    effective_interval_s,
)
from marketflow.ingest.tail import read_tail
from marketflow.settings import Settings
from marketflow.venues import coinbase_exchange, coingecko
from marketflow.warehouse.connection import connect

HELP = """\
Run one producer until SIGTERM or SIGINT, which make it publish what it has and leave with status 0.

  coinbase_exchange  WebSocket feed of matches, ticker and heartbeat for MARKETFLOW_PRODUCTS
  coingecko          poller of /coins/markets: MARKETFLOW_COINGECKO_ASSETS coins in MARKETFLOW_VS_CURRENCIES,
                     every MARKETFLOW_COINGECKO_POLL_INTERVAL_S

Settings come from MARKETFLOW_* variables, .env and <MARKETFLOW_HOME>/stack.json. Prometheus metrics are on
MARKETFLOW_PRODUCER_COINBASE_METRICS_PORT and MARKETFLOW_PRODUCER_COINGECKO_METRICS_PORT. Events are JSON lines on
stdout.

Exit status: 0 stopped; 1 Kafka lost a message for good, or something else is broken; 2 a setting is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m marketflow.ingest", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venue", choices=(coinbase_exchange.VENUE, coingecko.VENUE))
    venue = parser.parse_args(arguments).venue
    try:
        settings = configuration.load()
        if settings.dataset == "replay":
            raise ConfigurationError(
                "MARKETFLOW_DATASET: producers fill sim and live; `marketflow replay` fills replay"
            )
        settings.dsn()  # the ledger's password: asked for now, so that its absence is known at start
        asyncio.run(_coinbase(settings) if venue == coinbase_exchange.VENUE else _coingecko(settings))
    except MarketflowError as error:
        return _failed(error)
    except BaseExceptionGroup as group:
        known, unknown = group.split(MarketflowError)
        if unknown is not None or known is None:
            raise
        return _failed(_first(known))
    log("stopped", venue=venue)
    return 0


def _first(group: BaseExceptionGroup[MarketflowError]) -> MarketflowError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _failed(error: MarketflowError) -> int:
    sys.stderr.write(f"{error}\n")
    return error.exit_code


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def _coinbase(settings: Settings) -> None:
    metrics = Metrics(coinbase_exchange.VENUE)
    metrics.serve(settings.listen_host, settings.producer_coinbase_metrics_port, "producer_coinbase_metrics_port")
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    tail = await asyncio.to_thread(read_tail, settings, settings.products, stopping.is_set)
    if stopping.is_set():
        return
    log("starting", dataset=settings.dataset, products=settings.products, last_published=tail.last_ids)
    outbox = Outbox(partial(connect, settings))
    for product_id, holes in tail.holes.items():
        for first, last in holes:
            gap = Gap(coinbase_exchange.VENUE, product_id, first, last, "unknown")
            outbox.add(open_write(gap, datetime.now(UTC), None))
    tracker = GapTracker(coinbase_exchange.VENUE, tail.last_ids)
    publisher = KafkaPublisher(settings, metrics.observe_delivery)
    feed = CoinbaseFeed(settings, publisher, tracker, outbox, metrics)
    _on_signals(feed.stop)
    await feed.run()


async def _coingecko(settings: Settings) -> None:
    check_coingecko(settings)
    metrics = Metrics(coingecko.VENUE)
    metrics.serve(settings.listen_host, settings.producer_coingecko_metrics_port, "producer_coingecko_metrics_port")
    plan = COINGECKO_PLANS[settings.coingecko_plan]
    log(
        "starting",
        dataset=settings.dataset,
        assets=settings.coingecko_assets,
        vs_currencies=settings.vs_currencies,
        interval_s=effective_interval_s(settings),
        plan=plan.name,
        calls_per_poll=calls_per_poll(settings),
    )
    outbox = Outbox(partial(connect, settings))
    budget = Budget(coingecko.VENUE, plan, limited=settings.dataset == "live")
    publisher = KafkaPublisher(settings, metrics.observe_delivery)
    poller = CoinGeckoPoller(settings, publisher, budget, outbox, metrics)
    _on_signals(poller.stop)
    await poller.run()


if __name__ == "__main__":
    sys.exit(main())
