"""Postgres live.*: the stream's observations against silver, and its measures and movers recomputed from them."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from dataclasses import replace

from marketflow.verify.case import Case
from marketflow.verify.compare import Subject, compare
from marketflow.verify.gold import (
    LOOKBACK_US,
    PRICE_METRICS,
    STALE_US,
    TOP_MOVERS,
    columns,
    metrics_statement,
    movers_statement,
)
from marketflow.verify.postgres import copy

OBSERVATIONS = Subject(
    "live",
    "live.asset_observation",
    ("source", "asset_id", "vs_currency", "last_updated"),
    (
        *("symbol", "name", "price", "market_cap", "market_cap_rank", "volume_24h", "change_24h_pct"),
        *("polled_at", "poll_id", "poll_started_at", "origin"),
    ),
    "source || ' ' || vs_currency",
)
LIVE_METRICS = replace(PRICE_METRICS, layer="live", table="live.price_metrics")
LIVE_MOVERS = replace(TOP_MOVERS, layer="live", table="live.top_movers")


def check(case: Case) -> None:
    """All three tables, read in one transaction."""
    space = case.space
    for subject, name in (
        (OBSERVATIONS, "live_observations"),
        (LIVE_METRICS, "live_metrics"),
        (LIVE_MOVERS, "live_movers"),
    ):
        copy(case, name, subject.table, columns(subject))
    start = space.rows("select min(polled_at) from live_observations")[0][0]
    if start is None:
        reason = "no price was ever polled" if not space.rows("select 1 from silver_asset_prices limit 1") else None
        for subject in (OBSERVATIONS, LIVE_METRICS, LIVE_MOVERS):
            case.nothing_compared("live", subject.table, "asset_prices", reason=reason if case.at_rest else None)
        return
    _observations(case, max(start, case.since_us or 0))
    began_late = bool(space.rows(f"select 1 from silver_asset_prices where polled_at < {start} limit 1"))
    _measures(case, began_late)


def _observations(case: Case, start: int) -> None:
    """Rows polled from the live table's own beginning to the cut; the first value of a key wins on both sides."""
    space = case.space
    end = "true" if case.cut_us is None else f"polled_at <= {case.cut_us}"
    keys = ", ".join(OBSERVATIONS.key)
    space.table(
        "not_judged",
        f"select {keys} from blamed_asset_prices union all "
        f"select {keys} from silver_asset_prices where polled_at < {start}",
    )
    for source, name in (("silver_asset_prices", "polled"), ("live_observations", "observed")):
        space.table(
            name,
            f"select {', '.join(columns(OBSERVATIONS))} from {source} anti join not_judged using ({keys}) "
            f"where polled_at >= {start} and {end}",
        )
    faults = compare(space, case.report, OBSERVATIONS, "polled", "observed")
    # measures are judged from what the observations should be, so that one wrong price is named once
    space.table(
        "observations",
        f"""
        select * from (select distinct on ({keys}) * from live_observations) anti join {faults} using ({keys})
        union all by name
        select {", ".join(columns(OBSERVATIONS))} from polled semi join {faults} using ({keys})
        """,
    )
    case.nothing_compared("live", OBSERVATIONS.table, "asset_prices")


def _measures(case: Case, began_late: bool) -> None:
    """price_metrics and top_movers of the observations; where older ones exist, the first lookback is not judged."""
    space = case.space
    oldest = space.rows("select min(last_updated) from observations")[0][0] or 0
    first_full = oldest + LOOKBACK_US if began_late else 0
    from_us = max(first_full, case.since_us or 0)
    space.table("metrics", metrics_statement(case, 0))
    space.table("movers", movers_statement(case))
    compare(
        space,
        case.report,
        LIVE_METRICS,
        f"(select * from metrics where ts >= {from_us})",
        f"(select * from live_metrics where ts >= {from_us})",
    )
    compare(
        space,
        case.report,
        LIVE_MOVERS,
        f"(select * from movers where snapshot_ts >= {from_us + STALE_US * began_late})",
        f"(select * from live_movers where snapshot_ts >= {from_us + STALE_US * began_late})",
    )
    for subject, expected in ((LIVE_METRICS, "metrics"), (LIVE_MOVERS, "movers")):
        reason = None
        if subject is LIVE_MOVERS and not space.rows(f"select 1 from {expected} limit 1"):
            reason = "no asset has been observed for five minutes yet, so nothing can have moved"
        elif began_late and first_full:
            reason = "the live tables are younger than the measures' lookback"
        case.nothing_compared("live", subject.table, "asset_prices", reason=reason)
