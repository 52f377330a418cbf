"""Postgres gold.*: row for row the lake's gold at the snapshot that publication says it has published."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from marketflow.verify import cut
from marketflow.verify.case import Case
from marketflow.verify.compare import TIMES, Subject, compare
from marketflow.verify.gold import HOUR_COLUMN, HOUR_US, SILVER_OF, SUBJECTS, columns, stored

_MONEY = (
    *("price", "market_cap", "volume_24h", "open", "high", "low", "close", "volume", "notional", "vwap"),
    *("buy_volume", "sell_volume", "change_24h_pct"),
)
_DOUBLE = ("change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m", "realized_volatility_5m")
DUCKDB_TYPES = {
    **dict.fromkeys(_MONEY, "DECIMAL(38,18)"),
    **dict.fromkeys(_DOUBLE, "DOUBLE"),
    **dict.fromkeys(("market_cap_rank", "rank", "observations_5m"), "INTEGER"),
    **dict.fromkeys(("trade_count", "first_trade_id", "last_trade_id", *TIMES), "BIGINT"),
    **dict.fromkeys(("has_gap", "is_complete"), "BOOLEAN"),
}
"""Of the columns that are no text, by name: they mean the same wherever they occur."""


def copy(case: Case, name: str, table: str, listed: tuple[str, ...]) -> str:
    """The listed columns of a Postgres table as a DuckDB table, times in µs."""
    selected = ", ".join(
        f'(extract(epoch from "{one}") * 1000000)::bigint' if one in TIMES else f'"{one}"' for one in listed
    )
    kinds = {one: DUCKDB_TYPES.get(one, "VARCHAR") for one in listed}
    return case.warehouse.copy(name, f"select {selected} from {table}", kinds)


def check(case: Case) -> None:
    """Each published gold table."""
    states = cut.published(case.warehouse)
    for name, subject in SUBJECTS.items():
        _judge(case, replace(subject, layer="postgres", approximate={}, exact=_all_values(subject)), states.get(name))


def _all_values(subject: Subject) -> tuple[str, ...]:
    """A copy is exact, the measures too."""
    return (*subject.exact, *subject.approximate)


def _judge(case: Case, subject: Subject, state: cut.Published | None) -> None:
    space, gold, name = case.space, case.tables[subject.table], f"published_{subject.table.replace('.', '_')}"
    copy(case, name, subject.table, columns(SUBJECTS[subject.table]))
    if state is None:
        if space.rows(f"select 1 from {name} limit 1"):
            case.report.problem("postgres", subject.table, "all", "no mark", "rows without ops.publish_audit", count=1)
        case.nothing_compared(
            "postgres", subject.table, SILVER_OF[subject.table], reason=_nothing_to_publish(case, subject)
        )
        return
    if not gold.has(state.snapshot_id):
        case.report.problem(
            *("postgres", subject.table, "all", "published snapshot gone"),
            f"the lake's {subject.table} no longer has snapshot {state.snapshot_id}, which is said to be published",
            count=1,
        )
        return
    hour = f'"{HOUR_COLUMN[subject.table]}" // {HOUR_US} * {HOUR_US}'
    scope = f"{hour} >= {_first_hour(case)}"
    compare(
        space,
        case.report,
        subject,
        f"(select * from ({stored(space, gold, state.snapshot_id)}) where {scope})",
        f"(select * from {name} where {scope})",
    )
    case.nothing_compared(
        "postgres", subject.table, SILVER_OF[subject.table], reason=_nothing_to_publish(case, subject)
    )


def _first_hour(case: Case) -> int:
    """The first whole hour that must be in Postgres; the one in which the window begins may be there or not."""
    begin = datetime.now(UTC) - case.settings.published_window + timedelta(hours=1)
    return max(case.since_us or 0, cut.microseconds(begin)) // HOUR_US * HOUR_US


def _nothing_to_publish(case: Case, subject: Subject) -> str | None:
    name = subject.table.replace(".", "_")
    if "gold" in case.layers and not case.space.rows(
        f"select 1 from {name} where hour_us >= {_first_hour(case)} limit 1"
    ):
        return f"{subject.table} holds nothing in the last {case.settings.published_window.days} days"
    return None
