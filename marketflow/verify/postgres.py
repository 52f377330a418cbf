"""Postgres gold.*: row for row the lake's gold at the snapshot that publication says it has published."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from marketflow.verify import cut, features
from marketflow.verify.batches import Findings, batches
from marketflow.verify.case import Case
from marketflow.verify.compare import TIMES, Subject, compare
from marketflow.verify.features_oracle import FORMULAS
from marketflow.verify.gold import DAILY, HOUR_COLUMN, HOUR_US, SILVER_OF, SUBJECTS, columns, stored
from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable

_MONEY = (
    *("price", "market_cap", "volume_24h", "open", "high", "low", "close", "volume", "notional", "vwap"),
    *("buy_volume", "sell_volume", "change_24h_pct"),
)
_DOUBLE = ("change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m", "realized_volatility_5m", "volatility")
_COUNTS = ("market_cap_rank", "rank", "observations_5m", "gap_minutes", "hours", "complete_hours")
DUCKDB_TYPES = {
    **dict.fromkeys(_MONEY, "DECIMAL(38,18)"),
    **dict.fromkeys(_DOUBLE, "DOUBLE"),
    **dict.fromkeys(_COUNTS, "INTEGER"),
    **dict.fromkeys(("trade_count", "first_trade_id", "last_trade_id", *TIMES), "BIGINT"),
    **dict.fromkeys(("has_gap", "is_complete"), "BOOLEAN"),
}
"""Of the columns that are no text, by name: they mean the same wherever they occur."""


_WHOLE = (
    *("buy_count_50", "buy_count_100", "sell_count_50", "sell_count_100", "aggressor_run_length", "hour_of_day"),
    *("day_of_week", "gaps_in_window_500", "target_direction_10", "target_direction_50"),
)
FEATURE_TYPES = {
    **dict.fromkeys(FORMULAS, "DOUBLE"),
    **dict.fromkeys(_WHOLE, "INTEGER"),
    **dict.fromkeys(("is_buy", "is_weekend", "gap_before", "is_final"), "BOOLEAN"),
    "quote_join": "VARCHAR",
    **{"trade_id": "BIGINT", "event_ts": "BIGINT", "price": "DECIMAL(38,18)", "size": "DECIMAL(38,18)"},
}
"""The same of gold.trade_features."""


def copy(
    case: Case,
    name: str,
    table: str,
    listed: tuple[str, ...],
    kinds: Mapping[str, str] = DUCKDB_TYPES,
    where: str = "true",
) -> str:
    """The listed columns of a Postgres table as a DuckDB table, times in µs."""
    selected = ", ".join(
        f'(extract(epoch from "{one}") * 1000000)::bigint' if one in TIMES else f'"{one}"' for one in listed
    )
    known = {one: kinds.get(one, "VARCHAR") for one in listed}
    return case.warehouse.copy(name, f"select {selected} from {table} where {where}", known)


def check(case: Case) -> None:
    """Each published gold table."""
    states = cut.published(case.warehouse)
    for name, subject in SUBJECTS.items():
        _judge(case, replace(subject, layer="postgres", approximate={}, exact=_all_values(subject)), states.get(name))
    _judge_features(case, states.get(features.NAME))


def _all_values(subject: Subject) -> tuple[str, ...]:
    """A copy is exact, the measures too."""
    return (*subject.exact, *subject.approximate)


def _judge(case: Case, subject: Subject, state: cut.Published | None) -> None:
    space, gold, name = case.space, case.tables[subject.table], f"published_{subject.table.replace('.', '_')}"
    copy(case, name, subject.table, columns(SUBJECTS[subject.table]))
    state = _usable(case, gold, state, holds_rows=bool(space.rows(f"select 1 from {name} limit 1")))
    if state is not None:
        hour = f'"{HOUR_COLUMN[subject.table]}" // {HOUR_US} * {HOUR_US}'
        scope = f"{hour} >= {_first_hour(case, gold.name)}"
        compare(
            space,
            case.report,
            subject,
            f"(select * from ({stored(space, gold, state.snapshot_id)}) where {scope})",
            f"(select * from {name} where {scope})",
        )
    _nothing_compared(case, gold)


def _usable(case: Case, gold: LakeTable, state: cut.Published | None, *, holds_rows: bool) -> cut.Published | None:
    """What publication says, where the lake still has it; None where there is nothing to compare with."""
    if state is None:
        if holds_rows:
            case.report.problem("postgres", gold.name, "all", "no mark", "rows without ops.publish_audit", count=1)
        return None
    if gold.has(state.snapshot_id):
        return state
    case.report.problem(
        *("postgres", gold.name, "all", "published snapshot gone"),
        f"the lake's {gold.name} no longer has snapshot {state.snapshot_id}, which is said to be published",
        count=1,
    )
    return None


def _judge_features(case: Case, state: cut.Published | None) -> None:
    """The same of a wide table, some hours at a time."""
    space, gold = case.space, case.tables[features.NAME]
    first = _first_hour(case, gold.name)
    hour = "(extract(epoch from date_trunc('hour', event_ts, 'UTC')) * 1000000)::bigint"
    there = dict(case.warehouse.rows(f"select {hour}, count(*) from {gold.name} group by 1"))
    state = _usable(case, gold, state, holds_rows=bool(there))
    if state is not None:
        rows = features.rows_by_hour(case, gold, first, state.snapshot_id)
        rows |= {at: max(count, rows.get(at, 0)) for at, count in there.items() if at >= first}
        found = Findings("postgres", gold.name)
        subject = Subject("postgres", gold.name, features.KEY, features.COLUMNS[len(features.KEY) :], "product_id")
        for start, end in batches(rows):
            within = " and ".join(
                f"event_ts {comparison} to_timestamp({at // 1_000_000})"
                for comparison, at in ((">=", start), ("<", end))
            )
            copy(case, "published_features", gold.name, features.COLUMNS, FEATURE_TYPES, within)
            space.table("stored_features", features.stored(gold, start, end, state.snapshot_id))
            part = Report(case.report.dataset)
            compare(space, part, subject, "stored_features", "published_features")
            found.add(part)
        found.report(case.report)
    _nothing_compared(case, gold)


def _window(case: Case, name: str) -> timedelta:
    """How much of a table is published."""
    settings = case.settings
    if name in DAILY:
        return settings.published_days_window
    return settings.published_features_window if name == features.NAME else settings.published_window


def _first_hour(case: Case, name: str) -> int:
    """The first whole hour that must be in Postgres; the one in which the window begins may be there or not."""
    begin = datetime.now(UTC) - _window(case, name) + timedelta(hours=1)
    return max(case.since_us or 0, cut.microseconds(begin)) // HOUR_US * HOUR_US


def _nothing_compared(case: Case, gold: LakeTable) -> None:
    """Zero compared is a fault, but where the lake holds nothing that would be published."""
    first, reason = _first_hour(case, gold.name), None
    if "gold" in case.layers:
        held = f'epoch_us("{HOUR_COLUMN[gold.name]}") // {HOUR_US} * {HOUR_US} >= {first}'
        if not gold.snapshots or not case.space.rows(f"select 1 from {gold.scan()} where {held} limit 1"):
            hours = _window(case, gold.name) // timedelta(hours=1)
            since = "" if gold.name in DAILY else f" in the last {hours:,} hours"
            reason = f"{gold.name} holds nothing{since}"
    case.nothing_compared("postgres", gold.name, SILVER_OF[gold.name], reason=reason)
