"""The poller of exchanges by the library ccxt: each answer of fetch_trades to Kafka, as the library made it.

Exchanges run beside each other, the products of one after each other. Polling loses what passes between two polls when
it is more than an exchange tells at once; that is said (`trades_lost`), and cannot be healed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from uuid import uuid4

from marketflow.contracts.topics import SCHEMA_VERSION, TRADES, message_key
from marketflow.ingest.ccxt_exchange import Answer, CallError, CcxtExchange
from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.poller import FLUSH_S, next_poll_s
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.ingest.trade_cursor import TradeCursor
from marketflow.ingest.trade_times import Market
from marketflow.ingest.watch import watch
from marketflow.settings import Settings
from marketflow.venues.ccxt_trades import CHANNEL, trades_request, venue_of

# between tries to learn what an exchange trades
RETRY_S = 10.0


class CcxtPoller:
    """Polls until `stop` is called or a message is lost for good (PublishError)."""

    def __init__(
        self, settings: Settings, publisher: KafkaPublisher, metrics: Metrics, last_ms: Mapping[Market, int]
    ) -> None:
        """`last_ms` are the times of the last trades that were published before this process."""
        self._settings = settings
        self._last_ms = last_ms
        self._publisher = publisher
        self._metrics, self._pulse = metrics, metrics.pulse
        self._disk = DiskGuard(settings)
        self._stop = asyncio.Event()
        self._connection_id = uuid4().hex
        self._origin = "live" if settings.dataset == "live" else "simulated"

    def stop(self) -> None:
        """Finish; an answer that has not arrived is not waited for."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped. What was received is acknowledged by Kafka when this returns.

        Raises:
            ConfigurationError: an exchange does not trade a product.
        """
        async with asyncio.TaskGroup() as tasks:
            polling = [tasks.create_task(self._exchange(name)) for name in self._settings.ccxt_exchanges]
            watching = tasks.create_task(watch(self._publisher, self._disk, self._metrics, self.stop))
            await self._stop.wait()
            for task in (*polling, watching):
                task.cancel()
        await asyncio.to_thread(self._publisher.flush, FLUSH_S)
        if self._disk.shortage:
            raise self._disk.shortage

    async def _exchange(self, name: str) -> None:
        """One exchange, for ever."""
        products, interval_s = self._settings.ccxt_products, self._settings.ccxt_poll_interval_s
        cursors = {
            product_id: TradeCursor(self._settings.ccxt_limit, self._last_ms.get((venue_of(name), product_id)))
            for product_id in products
        }
        async with CcxtExchange(self._settings, name) as exchange:
            await self._opened(exchange)
            next_s = time.monotonic()
            while True:
                rest_s = await self._poll(exchange, cursors)
                next_s = next_poll_s(next_s, interval_s, time.monotonic() + rest_s)
                self._pulse.due_in(next_s - time.monotonic(), venue_of(name))
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _opened(self, exchange: CcxtExchange) -> None:
        """Wait until an exchange has said what it trades."""
        venue = venue_of(exchange.name)
        while True:
            self._pulse.due_in(0, venue)
            try:
                await exchange.check_products(self._settings.ccxt_products)
            except CallError as error:
                rest_s = self._failed(exchange.name, "load_markets", error) or RETRY_S
                self._pulse.due_in(rest_s, venue)
                await asyncio.sleep(rest_s)
            else:
                return

    async def _poll(self, exchange: CcxtExchange, cursors: dict[str, TradeCursor]) -> float:
        """Every product once; how many seconds the exchange asked to be left alone, else 0."""
        poll = {"poll_id": uuid4().hex, "poll_started_at": str(now_us())}
        for product_id, cursor in cursors.items():
            try:
                await self._product(exchange, product_id, cursor, poll)
            except CallError as error:
                rest_s = self._failed(exchange.name, self._request(product_id, cursor.since_ms), error)
                if rest_s:
                    return rest_s
        return 0.0

    def _failed(self, name: str, request: str, error: CallError) -> float:
        self._metrics.polls.labels(venue_of(name), error.label).inc()
        log("no_answer", venue=venue_of(name), request=request, what=error.label, means=str(error))
        return error.retry_after_s or 0.0

    def _request(self, product_id: str, since_ms: int | None) -> str:
        return trades_request(product_id, since_ms, self._settings.ccxt_limit)

    async def _product(
        self, exchange: CcxtExchange, product_id: str, cursor: TradeCursor, poll: dict[str, str]
    ) -> None:
        """All pages of a product from its cursor on, as a rule one."""
        venue, limit, page = venue_of(exchange.name), self._settings.ccxt_limit, 1
        since_ms = cursor.since_ms
        while True:
            self._pulse.due_in(0, venue)
            answer = await exchange.trades(product_id, since_ms, limit)
            headers = {
                **{"schema_version": SCHEMA_VERSION, "venue": venue, "channel": CHANNEL, "product_id": product_id},
                **{"received_at": str(now_us()), "connection_id": self._connection_id, "origin": self._origin},
                **{"request": self._request(product_id, since_ms), "page": str(page), **poll},
            }
            await self._publish(answer, headers)
            times_ms = [each["timestamp"] for each in answer]
            if page == 1:
                self._tell_loss(venue, product_id, cursor, times_ms)
            following_ms = cursor.took(since_ms, times_ms)
            if following_ms is None:
                return
            since_ms, page = following_ms, page + 1

    def _tell_loss(self, venue: str, product_id: str, cursor: TradeCursor, times_ms: list[int | None]) -> None:
        loose = cursor.loose(times_ms)
        if loose is not None:
            self._metrics.loose_polls.labels(venue).inc()
            log(
                "trades_lost",
                venue=venue,
                product_id=product_id,
                last_seen_ms=loose.after_ms,
                oldest_of_poll_ms=loose.before_ms,
                page_full=loose.full,
                means="trades between the two are not known, and polling cannot bring them; poll more often",
            )

    async def _publish(self, answer: Answer, headers: dict[str, str]) -> None:
        value = json.dumps(answer).encode()
        key = message_key(headers["venue"], headers["product_id"])
        encoded = [(name, text.encode()) for name, text in headers.items()]
        while not self._publisher.try_publish(TRADES, key, value, encoded):
            self._pulse.due_in(0, headers["venue"])
            await asyncio.sleep(0.05)
        self._metrics.polls.labels(headers["venue"], "200").inc()
        self._metrics.messages.labels(headers["venue"], CHANNEL).inc()
        self._metrics.bytes.inc(len(value))
        self._metrics.last_message.set(int(headers["received_at"]) / 1e6)
