"""An offline capture: hours of the same market on a virtual clock, as a recorder beside the feeds would write it.

Each line is `{"received_at_us", "venue", "channel", "connection_id", "raw"}` with the message as `raw`; a line of the
aggregator's has the page's array as `raw`, and poll_id, poll_started_at_us, page, vs_currency and request beside it.
The same arguments give the same bytes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from marketflow.errors import ConfigurationError
from marketflow.simulator import binance_wire, coinbase_wire
from marketflow.simulator.coingecko_wire import Pages, body
from marketflow.simulator.configuration import SimulatorConfiguration
from marketflow.simulator.faults import BINANCE, COINBASE, COINGECKO, FaultBox, FaultKind
from marketflow.simulator.feed_faults import FeedFaults
from marketflow.simulator.market import Event
from marketflow.simulator.randomness import stable_uuid, stream
from marketflow.simulator.simulation import Simulation
from marketflow.simulator.texts import SECOND_US

STEP_US = 100_000
MAX_PER_PAGE = 250
# Faults that a recorder can write down: a line of its file has to stay one JSON value.
CAPTURE_FAULTS = frozenset(
    {
        FaultKind.DROP,
        FaultKind.DUPLICATE,
        FaultKind.REORDER,
        FaultKind.NULL_PRICE,
        FaultKind.NEGATIVE_SIZE,
        FaultKind.YEAR_ONE,
        FaultKind.CONFLICTING_DUPLICATE,
        FaultKind.UNKNOWN_TYPE,
        FaultKind.UNKNOWN_FIELD,
        FaultKind.WRONG_TYPE,
        FaultKind.ID_RESET,
        FaultKind.CLOCK_SKEW,
        FaultKind.ERROR_OBJECT,
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, from when, for how long. `assets` 0 leaves the aggregator out."""

    out: Path
    truth: Path
    start: datetime
    hours: float
    products: tuple[str, ...]
    currencies: tuple[str, ...]
    assets: int
    poll_interval_s: float


class Recorder:
    """Writes lines in the order of their arrival, which is a little later than they were sent."""

    def __init__(self, file: BinaryIO, seed: int) -> None:
        self._file = file
        self._random = stream(seed, "recorder")
        self._waiting: list[tuple[int, int, bytes]] = []
        self._last_us: Counter[str] = Counter()
        self._count = 0
        self.counts: Counter[str] = Counter()

    def add(self, sent_us: int, envelope: dict[str, object], payload: bytes, mean_delay_us: float) -> None:
        """Take a message; one connection's messages never overtake each other."""
        connection = str(envelope["connection_id"])
        delayed_us = sent_us + int(mean_delay_us / 2 + self._random.expovariate(2 / mean_delay_us))
        received_us = self._last_us[connection] = max(delayed_us, self._last_us[connection] + 1)
        line = msgspec.json.encode({"received_at_us": received_us, **envelope, "raw": msgspec.Raw(payload)})
        heapq.heappush(self._waiting, (received_us, self._count, line))
        self._count += 1
        self.counts[f"{envelope['venue']}:{envelope['channel']}"] += 1

    def write_until(self, until_us: int | None) -> None:
        """Write what has arrived by then; nothing sent later can arrive before it. None writes all."""
        while self._waiting and (until_us is None or self._waiting[0][0] < until_us):
            self._file.write(heapq.heappop(self._waiting)[2] + b"\n")


class _Run:
    """One capture being made."""

    def __init__(self, plan: Plan, configuration: SimulatorConfiguration, file: BinaryIO) -> None:
        self._plan = plan
        self._seed = configuration.seed
        self.start_us = int(plan.start.timestamp()) * SECOND_US
        self.end_us = self.start_us + int(plan.hours * 3600 * SECOND_US)
        self.simulation = Simulation(
            configuration,
            products=plan.products,
            currencies=plan.currencies,
            truth_folder=plan.truth,
            now_us=self.start_us,
        )
        self.recorder = Recorder(file, configuration.seed)
        box = FaultBox(configuration.faults, configuration.seed)
        self._faults = {venue: FeedFaults(venue, box, CAPTURE_FAULTS) for venue in (COINBASE, BINANCE)}
        self._pages = Pages()
        self._socket_ids = {
            COINBASE: stable_uuid(configuration.seed, "socket", self.start_us),
            BINANCE: stable_uuid(configuration.seed, "socket", BINANCE, self.start_us),
        }
        self._poller_id = stable_uuid(configuration.seed, "poller", self.start_us)

    def write(self) -> None:
        """Step through the hours."""
        self.simulation.start(self.start_us)
        subscribed = [name for name, entry in self.simulation.listings.items() if entry.venue == COINBASE]
        if subscribed:
            answer = coinbase_wire.subscriptions(dict.fromkeys(coinbase_wire.CHANNELS, subscribed))
            self._feed(COINBASE, self.start_us, "subscriptions", answer)
        poll_us = self.start_us if self._plan.assets else self.end_us
        for now_us in self._steps():
            batch = self.simulation.step(now_us, now_us)
            self.simulation.publish(batch)
            self._tell(batch.events, now_us)
            if poll_us <= now_us < self.end_us:
                self._poll(poll_us := now_us)
                poll_us += int(self._plan.poll_interval_s * SECOND_US)
            self.recorder.write_until(now_us)
        self.recorder.write_until(None)
        self.simulation.truth.close()

    def _steps(self) -> Iterator[int]:
        yield from range(self.start_us, self.end_us, STEP_US)
        yield self.end_us - 1

    def _tell(self, events: Sequence[Event], now_us: int) -> None:
        """Each book on its own exchange's feed, Binance's messages without the envelope of combined streams."""
        told = {
            COINBASE: coinbase_wire.messages([e for e in events if e.listing.venue == COINBASE], self._seed),
            BINANCE: binance_wire.messages([e for e in events if e.listing.venue == BINANCE]),
        }
        for venue, messages in told.items():
            for message in self._faults[venue].apply(messages, now_us):
                if message.leaves:
                    self._feed(venue, now_us, message.channel, message.payload)

    def _feed(self, venue: str, sent_us: int, channel: str, payload: bytes) -> None:
        envelope: dict[str, object] = {"venue": venue, "channel": channel, "connection_id": self._socket_ids[venue]}
        self.recorder.add(sent_us, envelope, payload, mean_delay_us=20_000)

    def _poll(self, started_us: int) -> None:
        for currency in self._plan.currencies:
            poll_id = stable_uuid(self._seed, "poll", currency, started_us)
            per_page = min(MAX_PER_PAGE, self._plan.assets)
            for page in range(1, -(-self._plan.assets // per_page) + 1):
                quotations = [
                    quotation
                    for quotation in self.simulation.assets.published.values()
                    if quotation.vs_currency == currency
                ]
                items = self._pages.page(quotations, order="market_cap_desc", per_page=per_page, page=page)
                query = f"order=market_cap_desc&page={page}&per_page={per_page}&vs_currency={currency}"
                envelope: dict[str, object] = {
                    "venue": COINGECKO,
                    "channel": "markets",
                    "connection_id": self._poller_id,
                    "http_status": 200,
                    "poll_id": poll_id,
                    "poll_started_at_us": started_us,
                    "page": page,
                    "vs_currency": currency,
                    "request": f"/coins/markets?{query}",
                }
                self.recorder.add(started_us, envelope, body(items), mean_delay_us=150_000)


def write(plan: Plan, configuration: SimulatorConfiguration) -> dict[str, int]:
    """Write the capture and its truth; how many lines of each channel, and the facts of the truth."""
    existing = [path for path in plan.truth.glob("*.ndjson") if path.stat().st_size]
    if existing:
        raise ConfigurationError(f"--truth {plan.truth} already holds {existing[0].name}: give an empty folder")
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    with plan.out.open("wb") as file:
        run = _Run(plan, configuration, file)
        run.write()
    counts = dict(sorted(run.recorder.counts.items()))
    for name in ("trades", "prices"):
        with (plan.truth / f"{name}.ndjson").open("rb") as lines:
            counts[f"truth:{name}"] = sum(1 for _ in lines)
    return counts
