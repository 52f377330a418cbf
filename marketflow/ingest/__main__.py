"""`python -m marketflow.ingest SOURCE`: one producer process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from marketflow import settings as configuration
from marketflow.contracts.sources import SOURCES, Source
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.ingest.feed import Feed
from marketflow.ingest.gaps import GapTracker
from marketflow.ingest.healer import Healer
from marketflow.ingest.holes import HoleKeeper
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.newest import NewestIds
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.poller import Poller
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.quotas import Budget, check, effective_interval_s, plan_of
from marketflow.ingest.rest import RestClient
from marketflow.ingest.tail import read_tail
from marketflow.settings import Settings
from marketflow.venues.feeds import PROTOCOLS
from marketflow.venues.history import HISTORIES
from marketflow.venues.polls import POLLS
from marketflow.warehouse.connection import connect

HELP = """\
Run one producer until SIGTERM or SIGINT, which make it publish what it has and leave with status 0.

  coinbase_exchange  WebSocket feed of matches, ticker and heartbeat for its products of MARKETFLOW_PRODUCTS
  coinbase_advanced  WebSocket feed of market_trades, ticker and heartbeats; the same book as coinbase_exchange
  binance            WebSocket feed of trade and bookTicker
  coingecko          poller of /coins/markets: MARKETFLOW_COINGECKO_ASSETS coins in MARKETFLOW_VS_CURRENCIES,
  binance_prices     poller of /api/v3/ticker/24hr: its products of MARKETFLOW_PRODUCTS, live all that are known
  coincap            poller of /assets: MARKETFLOW_COINCAP_ASSETS coins in usd; its API needs a key
  cryptocompare      poller of /pricemultifull: MARKETFLOW_CRYPTOCOMPARE_SYMBOLS in MARKETFLOW_VS_CURRENCIES; the
                     same
  ccxt               poller of fetch_trades of MARKETFLOW_CCXT_EXCHANGES for MARKETFLOW_CCXT_PRODUCTS, by the library
                     ccxt; prices and sizes are floats, and what passes between two polls may be lost

A poller asks every MARKETFLOW_<NAME>_POLL_INTERVAL_S, within MARKETFLOW_<NAME>_PLAN and with MARKETFLOW_<NAME>_API_KEY.

Settings come from MARKETFLOW_* variables, .env and <MARKETFLOW_HOME>/stack.json. Prometheus metrics are on
MARKETFLOW_PRODUCER_<NAME>_METRICS_PORT. Events are JSON lines on stdout.

Exit status: 0 stopped; 1 Kafka lost a message for good, or something else is broken; 2 a setting is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check, run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m marketflow.ingest", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=tuple(SOURCES))
    source = SOURCES[parser.parse_args(arguments).source]
    try:
        settings = configuration.load()
        if settings.dataset == "replay":
            raise ConfigurationError(
                "MARKETFLOW_DATASET: producers fill sim and live; `marketflow replay` fills replay"
            )
        settings.dsn()  # the ledger's password: asked for now, so that its absence is known at start
        asyncio.run(_runner(source)(settings, source))
    except MarketflowError as error:
        return _failed(error)
    except BaseExceptionGroup as group:
        known, unknown = group.split(MarketflowError)
        if unknown is not None or known is None:
            raise
        return _failed(_first(known))
    log("stopped", source=source.name)
    return 0


def _runner(source: Source) -> Callable[[Settings, Source], Coroutine[Any, Any, None]]:
    if source.name == "ccxt":
        return _ccxt
    return _feed if source.is_feed else _poll


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


async def _feed(settings: Settings, source: Source) -> None:
    products = settings.products_of(source)
    if not products:
        raise ConfigurationError(f"MARKETFLOW_PRODUCTS: {source.name} trades none of {', '.join(settings.products)}")
    metrics = _metrics(settings, source)
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    tail = await asyncio.to_thread(read_tail, settings, source.venue, products, stopping.is_set)
    if stopping.is_set():
        return
    log("starting", source=source.name, dataset=settings.dataset, products=products, last_published=tail.last_ids)
    outbox = Outbox(partial(connect, settings))
    keeper = HoleKeeper(source.venue, GapTracker(source.venue, tail.last_ids), outbox, metrics)
    publisher = KafkaPublisher(settings, metrics.observe_delivery)
    feed = Feed(settings, source, publisher, keeper, outbox, metrics)
    _on_signals(feed.stop)
    history = HISTORIES[source.venue]
    async with RestClient(settings, publisher, history) as client:
        healer = Healer(history, client, outbox, keeper.published)
        keeper.heal_with(healer)
        keeper.found(tail)
        if PROTOCOLS[source.venue].tells_last_id:
            feed.beside(healer.run)
        else:
            newest = NewestIds(client, keeper, products, metrics, lambda: feed.behind)
            feed.beside(healer.run, newest.run, suspect=newest.look_soon)
        await feed.run()


def _metrics(settings: Settings, source: Source) -> Metrics:
    metrics = Metrics(source.venue)
    port = getattr(settings, source.metrics_port_setting)
    metrics.serve(settings.listen_host, port, source.metrics_port_setting)
    return metrics


async def _poll(settings: Settings, source: Source) -> None:
    check(settings, source)
    if not POLLS[source.name].requests(settings):
        raise ConfigurationError(f"MARKETFLOW_PRODUCTS: {source.name} trades none of {', '.join(settings.products)}")
    metrics, plan = _metrics(settings, source), plan_of(settings, source)
    log(
        "starting",
        source=source.name,
        dataset=settings.dataset,
        interval_s=effective_interval_s(settings, source),
        plan=plan.name,
        asks_for=[request.text for request in POLLS[source.name].requests(settings)],
    )
    outbox = Outbox(partial(connect, settings))
    budget = Budget(source.name, plan, limited=settings.dataset == "live")
    publisher = KafkaPublisher(settings, metrics.observe_delivery)
    poller = Poller(settings, source, publisher, budget, outbox, metrics)
    _on_signals(poller.stop)
    await poller.run()


async def _ccxt(settings: Settings, source: Source) -> None:
    # the library behind these takes seconds to import, which no other producer is to wait for
    from marketflow.ingest import ccxt_exchange
    from marketflow.ingest.ccxt_poller import CcxtPoller
    from marketflow.ingest.trade_times import last_trade_times
    from marketflow.venues.ccxt_trades import venue_of

    ccxt_exchange.check(settings)
    metrics = _metrics(settings, source)
    stopping = asyncio.Event()
    _on_signals(stopping.set)
    markets = [
        (venue_of(exchange), product) for exchange in settings.ccxt_exchanges for product in settings.ccxt_products
    ]
    last_ms = await asyncio.to_thread(last_trade_times, settings, markets, stopping.is_set)
    if stopping.is_set():
        return
    log(
        "starting",
        source=source.name,
        dataset=settings.dataset,
        interval_s=settings.ccxt_poll_interval_s,
        exchanges=settings.ccxt_exchanges,
        products=settings.ccxt_products,
        last_published_ms={" ".join(market): time_ms for market, time_ms in last_ms.items()},
    )
    poller = CcxtPoller(settings, KafkaPublisher(settings, metrics.observe_delivery), metrics, last_ms)
    _on_signals(poller.stop)
    await poller.run()


if __name__ == "__main__":
    sys.exit(main())
