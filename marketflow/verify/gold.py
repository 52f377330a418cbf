"""Gold: each table recomputed from the silver snapshot that it says it covers, every hour, the open one too."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from marketflow.verify.case import Case
from marketflow.verify.compare import Subject, compare
from marketflow.verify.cut import microseconds, stated
from marketflow.verify.sources import LakeTable, Snapshot, Workspace, statement

HOUR_US = 3_600_000_000
LOOKBACK_US = 1_236_000_000
STALE_US = 300_000_000
_MOVED = "1e-9"
"""A change is a difference of two numbers near 1, so its last digits are noise of 1e-14: a slack of 1e-9 percent."""

BARS = Subject(
    "gold",
    "gold.bars",
    ("venue", "product_id", "interval", "open_ts"),
    (
        *("open", "high", "low", "close", "volume", "notional", "vwap", "trade_count"),
        *("buy_volume", "sell_volume", "has_gap", "is_complete", "first_trade_id", "last_trade_id"),
    ),
    "product_id",
)
PRICE_METRICS = Subject(
    "gold",
    "gold.price_metrics",
    ("source", "asset_id", "vs_currency", "ts"),
    ("symbol", "name", "price", "market_cap", "market_cap_rank", "volume_24h", "polled_at", "observations_5m"),
    "source || ' ' || vs_currency",
    {
        "change_1min": _MOVED,
        "change_5min": _MOVED,
        "sma_5m": "0",
        "ema_3m": "0",
        # the deviation of nearly equal prices is known no better than the prices' own last digits
        "volatility_5m": "1e-12 * abs(e.price::double)",
        "realized_volatility_5m": "1e-12",
    },
)
TOP_MOVERS = Subject(
    "gold",
    "gold.top_movers",
    ("source", "vs_currency", "snapshot_ts", "direction", "rank"),
    ("poll_id", "asset_id", "symbol", "name", "price", "market_cap_rank", "observed_at"),
    "source || ' ' || vs_currency",
    {"change_1min": _MOVED, "change_5min": _MOVED, "volatility_5m": "1e-12 * abs(e.price::double)"},
)
PRODUCT_DAY = Subject(
    "gold",
    "gold.product_day",
    ("venue", "product_id", "day"),
    (
        *("open", "high", "low", "close", "volume", "notional", "vwap", "trade_count", "buy_volume", "sell_volume"),
        *("gap_minutes", "hours", "complete_hours", "is_complete"),
    ),
    "product_id",
    # a logarithm of a ratio near 1 is known to some 2e-16, a root of 288 such squares to √288 of that
    {"volatility": "1e-14"},
)
SUBJECTS = {subject.table: subject for subject in (BARS, PRICE_METRICS, TOP_MOVERS, PRODUCT_DAY)}
SILVER_OF = {
    **{"gold.bars": "trades", "gold.price_metrics": "asset_prices", "gold.top_movers": "asset_prices"},
    # judged in features.py
    "gold.trade_features": "trades",
    # by way of gold.bars, which is judged for itself
    "gold.product_day": "trades",
}
DAILY = ("gold.product_day",)
"""Tables that are complete through some midnight: they have no part in the cut."""
TIMES = {
    "gold.bars": ("open_ts",),
    "gold.price_metrics": ("ts", "polled_at"),
    "gold.top_movers": ("snapshot_ts", "observed_at"),
    "gold.product_day": ("day",),
}
VERSION_OF = {"gold.bars": 2, "gold.trade_features": 2}
"""Below this a table's rows are not what is judged here: the next commit that moves its mark writes all anew."""
HOUR_COLUMN = {
    **{"gold.bars": "open_ts", "gold.price_metrics": "ts", "gold.top_movers": "snapshot_ts"},
    **{"gold.trade_features": "event_ts", "gold.product_day": "day"},
}


def columns(subject: Subject) -> tuple[str, ...]:
    """Every column that is judged."""
    return (*subject.key, *subject.exact, *subject.approximate)


def stored(space: Workspace, table: LakeTable, snapshot_id: int | None = None) -> str:
    """The gold table's judged columns, times in µs, and the hour of each row; null where a snapshot has no such column.

    An older version may have written the snapshot.
    """
    times = TIMES[table.name]
    held = {row[0] for row in space.rows(f"describe select * from {table.scan(snapshot_id)}")}
    listed = ", ".join(
        f'null as "{name}"' if name not in held else f'epoch_us("{name}") as "{name}"' if name in times else f'"{name}"'
        for name in columns(SUBJECTS[table.name])
    )
    hour = f'epoch_us("{HOUR_COLUMN[table.name]}") // {HOUR_US} * {HOUR_US}'
    return f"select {listed}, {hour} as hour_us from {table.scan(snapshot_id)}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What gold says it covers, and when (µs) which hours and days were replaced since without moving that mark.

    `beside_snapshot` is of the second silver table, where there is one and it holds anything.
    """

    silver_snapshot: int
    complete_through: datetime | None
    replaced_since: dict[int, int]
    days_since: dict[int, int]
    version: int
    beside_snapshot: int | None = None


def first_hour(case: Case) -> int:
    """The first hour (µs) that is judged: whole hours, the one in which the scope begins included."""
    return (case.since_us or 0) // HOUR_US * HOUR_US


def mark_of(table: LakeTable) -> Mark | None:
    """The mark of the newest commit that has one."""
    newest = table.newest_with("silver_snapshot")
    if newest is None:
        return None
    covered = _covered(newest)
    since: dict[str, dict[int, int]] = {"hours": {}, "days": {}}
    writes = [snapshot for snapshot in table.snapshots if "hours" in snapshot.properties]
    for later, earlier in pairwise(writes):
        if _covered(later) != covered or _covered(earlier) != covered:
            break
        for unit, replaced in since.items():
            for begin in replaced_by(later, unit):
                replaced.setdefault(begin, later.committed_us)
    silver_snapshot, beside = newest.properties["silver_snapshot"], covered[1]
    version = int(newest.properties.get("version", 1))
    through = stated(newest.properties)
    return Mark(int(silver_snapshot), through, since["hours"], since["days"], version, int(beside) if beside else None)


def is_older(case: Case, gold: LakeTable, mark: Mark) -> bool:
    """Whether the rows are of a version that is not judged here, which is a problem of its own."""
    if mark.version >= VERSION_OF.get(gold.name, 1):
        return False
    case.report.problem(
        *("gold", gold.name, "all", "older version"),
        f"{gold.name} was written by an older version; the next run of Dag advance writes every hour of it anew",
        count=1,
    )
    return True


def replaced_by(snapshot: Snapshot, unit: str = "hours") -> list[int]:
    """The hours (or days) that a commit says it has replaced, by their beginning in µs."""
    begins = map(datetime.fromisoformat, json.loads(snapshot.properties.get(unit, "[]")))
    return [microseconds(begin if begin.tzinfo else begin.replace(tzinfo=UTC)) for begin in begins]


def _covered(snapshot: Snapshot) -> tuple[str | None, str | None]:
    return snapshot.properties.get("silver_snapshot"), snapshot.properties.get("beside_snapshot")


def check(case: Case) -> None:
    """Each gold table against its recomputation."""
    _judge(case, BARS, _bars)
    _judge(case, PRICE_METRICS, _price_metrics)
    _judge(case, TOP_MOVERS, _top_movers)
    _judge(case, PRODUCT_DAY, _product_days)


def _judge(case: Case, subject: Subject, recompute: Callable[[Case, str, int | None], str]) -> None:
    space, gold = case.space, case.tables[subject.table]
    silver = _source(case, subject)
    mark = mark_of(gold)
    name = subject.table.replace(".", "_")
    space.table(name, stored(space, gold) if gold.snapshots else f"{stored(space, gold)} limit 0")
    if mark is None:
        if space.rows(f"select 1 from {name} limit 1"):
            case.report.problem(
                "gold", gold.name, "all", "no mark", "no snapshot says what it covers of silver", count=1
            )
        else:
            reason = "Dag gold_daily has not run yet" if subject is PRODUCT_DAY else empty(case, silver)
            case.nothing_compared("gold", gold.name, SILVER_OF[gold.name], reason=reason)
        return
    if is_older(case, gold, mark):
        return
    if not silver.has(mark.silver_snapshot):
        case.report.problem(
            *("gold", gold.name, "all", "covered snapshot gone"),
            f"{silver.name} no longer has snapshot {mark.silver_snapshot}, which {gold.name} says it covers",
            count=1,
        )
        return
    through = _through(subject, mark, silver, mark.silver_snapshot)
    space.table(f"expected_{name}", recompute(case, silver.scan(mark.silver_snapshot), through))
    _apply_later_writes(case, subject, mark, silver, recompute)
    scope = f"hour_us >= {first_hour(case)}"
    compare(
        space,
        case.report,
        subject,
        f"(select * from expected_{name} where {scope})",
        f"(select * from {name} where {scope})",
    )
    case.nothing_compared("gold", gold.name, SILVER_OF[gold.name], reason=_reason(case, subject, silver, name))


def _source(case: Case, subject: Subject) -> LakeTable:
    """The table that this one is made of."""
    return case.tables["gold.bars" if subject is PRODUCT_DAY else f"silver.{SILVER_OF[subject.table]}"]


def _through(subject: Subject, mark: Mark, silver: LakeTable, snapshot_id: int) -> int | None:
    """What was complete (µs) when rows were made of this snapshot: days by what their bars say of themselves."""
    through = mark.complete_through
    if subject is PRODUCT_DAY:
        since = [one.snapshot_id for one in silver.snapshots].index(snapshot_id)
        through = next((stated(one.properties) for one in silver.snapshots[since:] if stated(one.properties)), None)
    return microseconds(through) if through else None


def seen_at(silver: LakeTable, committed_us: int) -> int | None:
    """The newest snapshot that a write of that moment can have read."""
    return next((one.snapshot_id for one in silver.snapshots if one.committed_us <= committed_us), None)


def _apply_later_writes(
    case: Case,
    subject: Subject,
    mark: Mark,
    silver: LakeTable,
    recompute: Callable[[Case, str, int | None], str],
) -> None:
    """Hours that a backfill wrote since the mark hold what silver held at that write, not what the mark covers.

    Bars of a day lie in the hour of midnight and are written by the day, not with that hour.
    """
    name = subject.table.replace(".", "_")
    daily = "\"interval\" = '1d'" if subject is BARS else "false"
    by_snapshot: dict[int, dict[str, list[int]]] = {}
    for replaced, kind in ((mark.replaced_since, f"not {daily}"), (mark.days_since, daily)):
        for begin, committed_us in replaced.items():
            seen = seen_at(silver, committed_us)
            if seen is not None and seen != mark.silver_snapshot:
                by_snapshot.setdefault(seen, {}).setdefault(kind, []).append(begin)
    for snapshot_id, begins in by_snapshot.items():
        through = _through(subject, mark, silver, snapshot_id)
        listed = [f"({kind} and hour_us in ({', '.join(map(str, those))}))" for kind, those in begins.items()]
        inside = " or ".join(listed)
        case.space.table("later", recompute(case, silver.scan(snapshot_id), through))
        case.space.run(f"delete from expected_{name} where {inside}")
        case.space.run(f"insert into expected_{name} by name select * from later where {inside}")


def empty(case: Case, silver: LakeTable) -> str | None:
    """Why nothing could be compared, where nothing was ever traded or polled and nothing will be."""
    if case.at_rest and not (silver.snapshots and case.space.rows(f"select 1 from {silver.scan()} limit 1")):
        return f"{silver.name} is empty"
    return None


def _reason(case: Case, subject: Subject, silver: LakeTable, name: str) -> str | None:
    if subject is PRODUCT_DAY and not case.space.rows(f"select 1 from expected_{name} limit 1"):
        return "no day has ended yet by the bars that it covers"
    if subject is TOP_MOVERS and not case.space.rows(f"select 1 from expected_{name} limit 1"):
        return "no asset has been observed for five minutes yet, so nothing can have moved"
    if case.since_us is not None and not case.space.rows(
        f"select 1 from expected_{name} where hour_us >= {first_hour(case)} limit 1"
    ):
        return "silver has nothing in scope"
    return empty(case, silver)


def _bars(case: Case, silver: str, through: int | None) -> str:
    case.space.table(
        "trades",
        "select venue, product_id, trade_id, price, size, notional, taker_side, epoch_us(event_ts) as event_ts "
        f"from {silver}",
    )
    return statement("bars").replace("$complete_through", str(through if through is not None else -1))


def _product_days(case: Case, bars: str, through: int | None) -> str:
    case.space.table(
        "day_bars",
        "select venue, product_id, interval, epoch_us(open_ts) as open_ts, open, high, low, close, volume, notional, "
        f"vwap, trade_count, buy_volume, sell_volume, has_gap, is_complete from {bars}",
    )
    return statement("product_day").replace("$complete_through", str(through if through is not None else -1))


def _observations(case: Case, silver: str) -> None:
    back = first_hour(case) - 2 * LOOKBACK_US
    scope = "true" if back < 0 else f"greatest(last_updated, poll_started_at) >= make_timestamptz({back})"
    case.space.table(
        "observations",
        f"""
        select source, asset_id, vs_currency, epoch_us(last_updated) as last_updated, symbol, name, price, market_cap,
          market_cap_rank, volume_24h, epoch_us(polled_at) as polled_at, poll_id,
          epoch_us(poll_started_at) as poll_started_at
        from {silver} where {scope}
        """,
    )


def metrics_statement(case: Case, from_us: int) -> str:
    """price_metrics.sql over the table `observations`."""
    text = statement("price_metrics").replace("$tolerance_us", str(case.settings.change_tolerance_s * 1_000_000))
    return text.replace("$from_us", str(from_us))


def movers_statement(case: Case) -> str:
    """top_movers.sql over the tables `observations` and `metrics`."""
    return statement("top_movers").replace("$per_direction", str(case.settings.movers_per_direction))


def _price_metrics(case: Case, silver: str, through: int | None) -> str:
    _observations(case, silver)
    return metrics_statement(case, first_hour(case))


def _top_movers(case: Case, silver: str, through: int | None) -> str:
    _observations(case, silver)
    case.space.table("metrics", metrics_statement(case, first_hour(case) - STALE_US))
    return movers_statement(case)
