"""What each plan of a source allows, as data; the refusal of a configuration that must exceed it; even spending.

CoinGecko's figures are those of its pages as read in 2026, and the lower one where they disagree. `keyless` has no
monthly quota, and its limit per minute is shared by everybody behind one address.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg

from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.venues.coingecko import MAX_PER_PAGE

Connection = psycopg.Connection[tuple[Any, ...]]

MONTH_S = 30 * 86_400
USUAL_INTERVAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Calls allowed; `calls_per_month` is None where there is no monthly quota."""

    name: str
    calls_per_minute: int
    calls_per_month: int | None


COINGECKO_PLANS = {
    plan.name: plan
    for plan in (
        Plan("keyless", 5, None),
        Plan("demo", 30, 10_000),
        Plan("basic", 250, 100_000),
        Plan("analyst", 500, 500_000),
        Plan("lite", 500, 2_000_000),
        Plan("pro", 500, 2_000_000),
    )
}


def pages_per_currency(assets: int) -> tuple[int, int]:
    """How many pages, and how many assets on each, bring at least `assets`: 300 is two pages of 150."""
    pages = math.ceil(assets / MAX_PER_PAGE)
    return pages, math.ceil(assets / pages)


def calls_per_poll(settings: Settings) -> int:
    """Requests that one poll sends."""
    return pages_per_currency(settings.coingecko_assets)[0] * len(settings.vs_currencies)


def fastest_interval_s(plan: Plan, calls: int) -> float:
    """The shortest interval at which `calls` per poll fit the plan."""
    by_minute = calls * 60 / plan.calls_per_minute
    by_month = calls * MONTH_S / plan.calls_per_month if plan.calls_per_month else 0.0
    return max(by_minute, by_month)


def effective_interval_s(settings: Settings) -> float:
    """Seconds between polls: what was asked, else 30 s, or as fast as a live plan allows where that is slower."""
    if settings.coingecko_poll_interval_s is not None:
        return settings.coingecko_poll_interval_s
    if settings.dataset != "live":
        return USUAL_INTERVAL_S
    plan = COINGECKO_PLANS[settings.coingecko_plan]
    return max(USUAL_INTERVAL_S, float(math.ceil(fastest_interval_s(plan, calls_per_poll(settings)))))


def check_coingecko(settings: Settings) -> None:
    """Refuse live settings that must exceed their plan, with the arithmetic. The simulator has no quota."""
    if settings.dataset != "live":
        return
    plan = COINGECKO_PLANS[settings.coingecko_plan]
    if plan.name == "keyless" and settings.coingecko_api_key is not None:
        raise ConfigurationError("MARKETFLOW_COINGECKO_PLAN: a key is set, but plan keyless takes none; name its plan")
    if plan.name != "keyless" and settings.coingecko_api_key is None:
        raise ConfigurationError(f"MARKETFLOW_COINGECKO_API_KEY: plan {plan.name} needs a key")
    calls, interval_s = calls_per_poll(settings), effective_interval_s(settings)
    currencies = len(settings.vs_currencies)
    what = f"{calls // currencies} page(s) x {currencies} currency(ies) every {interval_s:g} s"
    advice = (
        f"poll every {math.ceil(fastest_interval_s(plan, calls))} s or more, or lower MARKETFLOW_COINGECKO_ASSETS, "
        "or use a larger MARKETFLOW_COINGECKO_PLAN"
    )
    per_minute, per_month = calls * 60 / interval_s, calls * MONTH_S / interval_s
    if plan.calls_per_month is not None and per_month > plan.calls_per_month:
        raise ConfigurationError(
            f"MARKETFLOW_COINGECKO_POLL_INTERVAL_S: {what} is {per_month:,.0f} calls in 30 days, "
            f"plan {plan.name} allows {plan.calls_per_month:,}: {advice}"
        )
    if per_minute > plan.calls_per_minute:
        raise ConfigurationError(
            f"MARKETFLOW_COINGECKO_POLL_INTERVAL_S: {what} is {per_minute:,.1f} calls a minute, "
            f"plan {plan.name} allows {plan.calls_per_minute}: {advice}"
        )


@dataclass(slots=True)
class Budget:
    """Calls spent this month, by this process and, once Postgres has said so, by those before it."""

    source: str
    plan: Plan
    limited: bool
    month: date = date(1970, 1, 1)
    spent_before: int | None = None
    spent_here: int = 0

    def spend(self, now: datetime) -> None:
        """One request is about to be sent."""
        month = now.astimezone(UTC).date().replace(day=1)
        if month != self.month:
            self.month, self.spent_before, self.spent_here = month, None, 0
        self.spent_here += 1

    @property
    def allowed(self) -> int | None:
        """The month's quota, or None where there is none."""
        return self.plan.calls_per_month if self.limited else None

    @property
    def left(self) -> int | None:
        """Calls left this month, or None where there is no quota."""
        return None if self.allowed is None else max(0, self.allowed - (self.spent_before or 0) - self.spent_here)

    @property
    def spacing_s(self) -> float:
        """Seconds between two requests that keep within the limit per minute."""
        return 60 / self.plan.calls_per_minute if self.limited else 0.0

    def interval_s(self, wanted_s: float, calls: int, now: datetime) -> float:
        """The wanted interval, or a longer one that makes what is left last until the month ends."""
        left = self.left
        if left is None:
            return wanted_s
        following = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        first_of_next = datetime(*following, 1, tzinfo=UTC)
        remaining_s = (first_of_next - now).total_seconds()
        return remaining_s if left < calls else max(wanted_s, remaining_s * calls / left)

    def record(self, connection: Connection) -> None:
        """Write the month's total to ops.quota_usage; repeating it changes nothing."""
        month, here, before = self.month, self.spent_here, self.spent_before
        key = (self.source, self.plan.name, month)
        if before is None:
            row = connection.execute(
                "select calls from ops.quota_usage where source = %s and plan = %s and month = %s", key
            ).fetchone()
            before = int(row[0]) if row else 0
            if self.month == month:
                self.spent_before = before
        connection.execute(
            "insert into ops.quota_usage (source, plan, month, calls, calls_allowed, updated_at) "
            "values (%s, %s, %s, %s, %s, now()) on conflict (source, plan, month) do update "
            "set calls = greatest(ops.quota_usage.calls, excluded.calls), "
            "calls_allowed = excluded.calls_allowed, updated_at = excluded.updated_at",
            (*key, before + here, self.allowed),
        )
