"""Holes in silver's trade ids, found without Spark and without reading what is whole.

Rows of silver.trades are unique, so a day of a product is whole where as many rows lie in its files as there are ids
from its first to its last: the files' own bounds and counts say it, and no data is read. Only where that sum does not
come out, and the gap ledger does not explain by how much, a day's ids are read. Files that hold two venues' trades of
one product tell nothing of either; such days are counted by reading, and only recent ones. Venues that do not number
their trades one by one (ccxt_*) have no holes that could be seen, and are left out.

A product's story begins with the first trade that a feed heard. What a backfill asked for from before that is no story
that somebody missed a part of: between a day of last year and the first heard trade nothing is looked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.sources import CCXT_AFTER, CCXT_PREFIX, numbers_each_trade
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.venues import id_ranges
from marketflow.venues.id_ranges import Range

TABLE = "silver.trades"
# days whose files are mixed are counted by reading as far back as the promised outage reaches, and one more
RECENT = timedelta(days=4)
# ledger rows further apart than this are looked up each by themselves: what lies between is not read
_FAR = 1_000_000
# ids that a row above and below a hole are looked for in, where a neighbour is missing too
_NEAR = 100_000

_STRETCHES = """
select min(trade_id), max(trade_id) from (
  select trade_id, trade_id - row_number() over (order by trade_id) as island
  from silver.trades where venue = ? and product_id = ? and {condition})
group by island order by 1
"""

# venue and product
Market = tuple[str, str]
BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Day:
    """One day of one product at one venue: its lowest and highest id, and how many trades it has."""

    market: Market
    day: date
    first_id: int
    last_id: int
    trades: int

    @property
    def whole(self) -> bool:
        """Whether no id is missing within it."""
        return self.last_id - self.first_id + 1 == self.trades


@dataclass(frozen=True, slots=True)
class FoundHole:
    """Ids that silver lacks between two that it has; times of these two, and when the later one arrived."""

    venue: str
    product_id: str
    first_id: int
    last_id: int
    before_us: int
    after_us: int
    seen_us: int

    @property
    def missing(self) -> int:
        """How many ids."""
        return self.last_id - self.first_id + 1


class SilverTrades:
    """silver.trades as it is now, by light readers; use it as a context."""

    def __init__(self, settings: Settings, *, now: datetime | None = None) -> None:
        self._settings = settings
        self._recent = ((now or datetime.now(UTC)) - RECENT).date()
        self._engine: Any = None
        # the lowest id of each market's files without backfilled trades; markets that have files with some
        self._heard: dict[Market, int] = {}
        self._backfilled: set[Market] = set()

    def __enter__(self) -> SilverTrades:
        """The engine is started when it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        if self._engine is not None:
            self._engine.close()

    def _rows(self, statement: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
        if self._engine is None:
            self._engine = readers.duckdb(self._settings)
        rows: list[tuple[Any, ...]] = self._engine.execute(statement, parameters).fetchall()
        return rows

    def days(self) -> list[Day]:
        """Every day that can be counted: from the metadata, or by reading where files are mixed and recent."""
        plain: defaultdict[tuple[Market, date], list[tuple[int, int, int]]] = defaultdict(list)
        mixed: set[tuple[str, date]] = set()
        for file in readers.data_files(self._settings, TABLE, ("venue", "trade_id", "origin")):
            product_id, day = file.partition[0], _day(file.partition[1])
            lowest, highest = file.bounds["venue"]
            venues, unnumbered = _venues(product_id, lowest, highest), _may_hold_unnumbered(lowest, highest)
            if unnumbered and not venues:
                continue
            self._place_origin([(venue, product_id) for venue in venues], file, mixed=unnumbered)
            if len(venues) == 1 and not unnumbered:
                plain[(venues[0], product_id), day].append((*file.bounds["trade_id"], file.rows))
            else:
                mixed.add((product_id, day))
        unknown = {product_id for product_id, day in mixed if day < self._recent}
        found = [
            Day(market, day, min(f[0] for f in files), max(f[1] for f in files), sum(f[2] for f in files))
            for (market, day), files in plain.items()
            if (market[1], day) not in mixed and (market[1] not in unknown or day >= self._recent)
        ]
        for product_id, day in sorted(mixed):
            if day >= self._recent:
                found += self._counted(product_id, day)
        return found

    def _place_origin(self, markets: list[Market], file: readers.DataFile, *, mixed: bool) -> None:
        # of the origins backfill is the first in the alphabet
        if file.bounds["origin"][0] <= BACKFILL:
            self._backfilled.update(markets)
        elif len(markets) == 1 and not mixed:
            lowest = file.bounds["trade_id"][0]
            self._heard[markets[0]] = min(lowest, self._heard.get(markets[0], lowest))

    def _first_heard(self, market: Market) -> int | None:
        """The first trade that a feed heard; None where all were asked for."""
        known = self._heard.get(market)
        ((lower,),) = self._rows(
            "select min(trade_id) from silver.trades where venue = ? and product_id = ? and origin <> ? "
            "and trade_id < coalesce(?, 9223372036854775807)",
            [*market, BACKFILL, known],
        )
        return known if lower is None else int(lower)

    def _counted(self, product_id: str, day: date) -> list[Day]:
        rows = self._rows(
            "select venue, min(trade_id), max(trade_id), count(*) from silver.trades "
            "where product_id = ? and event_ts >= ? and event_ts < ? group by venue",
            [product_id, *_bounds(day)],
        )
        return [Day((venue, product_id), day, *numbers) for venue, *numbers in rows if numbers_each_trade(venue)]

    def holes(self, explained: Mapping[Market, list[Range]]) -> list[FoundHole]:
        """Ids missing between a product's first trade and its last, but for those that are explained."""
        by_market: defaultdict[Market, list[Day]] = defaultdict(list)
        for day in self.days():
            by_market[day.market].append(day)
        found = []
        for market, days in sorted(by_market.items()):
            known = explained.get(market, [])
            if market in self._backfilled:
                found += self._after_the_first_heard(market, days, known)
                continue
            span = (min(day.first_id for day in days), max(day.last_id for day in days))
            missing = span[1] - span[0] + 1 - sum(day.trades for day in days)
            if missing == id_ranges.count(id_ranges.within(known, [span])):
                continue
            here = [island for day in days for island in self._islands(day)]
            found += self._placed(market, id_ranges.without([span], here), known)
        return found

    def _after_the_first_heard(self, market: Market, days: list[Day], known: list[Range]) -> list[FoundHole]:
        first = self._first_heard(market)
        last = max(day.last_id for day in days)
        if first is None or first >= last:
            return []
        here = [island for day in days if day.last_id >= first for island in self._islands(day)]
        return self._placed(market, id_ranges.without([(first, last)], here), known)

    def _islands(self, day: Day) -> list[Range]:
        """Stretches of ids without a hole."""
        if day.whole:
            return [(day.first_id, day.last_id)]
        return self._stretches("event_ts >= ? and event_ts < ?", [*day.market, *_bounds(day.day)])

    def _stretches(self, condition: str, parameters: list[Any]) -> list[Range]:
        statement = _STRETCHES.format(condition=condition)
        return [(first, last) for first, last in self._rows(statement, parameters)]

    def _placed(self, market: Market, holes: list[Range], known: list[Range]) -> list[FoundHole]:
        """What of the holes is not known, with the times of the trades on either side of the whole hole."""
        new = [hole for hole in holes if id_ranges.without([hole], known)]
        told: dict[int, tuple[int, int]] = {}
        for cluster in _clusters((each, each) for first, last in new for each in (first - 1, last + 1)):
            ids = [each for first, last in cluster for each in range(first, last + 1)]
            rows = self._rows(
                "select trade_id, epoch_us(event_ts), epoch_us(received_at) from silver.trades "
                "where venue = ? and product_id = ? and trade_id between ? and ? and list_contains(?, trade_id)",
                [*market, ids[0], ids[-1], ids],
            )
            told |= {trade_id: (event_us, received_us) for trade_id, event_us, received_us in rows}
        return [
            FoundHole(*market, first, last, told[hole[0] - 1][0], *told[hole[1] + 1])
            for hole in new
            for first, last in id_ranges.without([hole], known)
        ]

    def present(self, asked: Mapping[Market, Iterable[Range]]) -> dict[Market, list[Range]]:
        """Which of these ids are in silver."""
        found = {}
        for market, ranges in asked.items():
            here: list[Range] = []
            for cluster in _clusters(ranges):
                stretches = self._stretches("trade_id between ? and ?", [*market, cluster[0][0], cluster[-1][1]])
                here += id_ranges.within(stretches, cluster)
            found[market] = id_ranges.union(here)
        return found

    def around(self, market: Market, hole: Range) -> tuple[int | None, int | None]:
        """Times of the last trade before a hole and of the first after it, in µs; None where none is near."""
        ((before, after),) = self._rows(
            "select epoch_us(max(event_ts) filter (trade_id < ?)), epoch_us(min(event_ts) filter (trade_id > ?)) "
            "from silver.trades where venue = ? and product_id = ? and trade_id between ? and ?",
            [*hole, *market, hole[0] - _NEAR, hole[1] + _NEAR],
        )
        return before, after


def _clusters(ranges: Iterable[Range]) -> list[list[Range]]:
    """Ranges in order, those far apart in lists of their own."""
    clusters: list[list[Range]] = []
    for one in id_ranges.union(ranges):
        if clusters and one[0] - clusters[-1][-1][1] <= _FAR:
            clusters[-1].append(one)
        else:
            clusters.append([one])
    return clusters


def _venues(product_id: str, lowest: str, highest: str) -> list[str]:
    """Venues whose trades a file of the product may hold; the bounds are cut, the upper one rounded up."""
    return [venue for venue in PRODUCTS[product_id].names if lowest <= venue and venue <= highest]


def _may_hold_unnumbered(lowest: str, highest: str) -> bool:
    """Whether bounds leave room for a venue whose ids say nothing of what is missing."""
    return lowest < CCXT_AFTER and highest >= CCXT_PREFIX


def _day(value: Any) -> date:
    """A day partition's value: days since the epoch, or a date."""
    return value if isinstance(value, date) else date(1970, 1, 1) + timedelta(days=int(value))


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)
