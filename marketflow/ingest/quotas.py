"""What each plan of a polled source allows, as data; the refusal of a configuration that must exceed it; even spending.

Where a venue's pages disagree the lower figure is taken. None is where no figure is documented, or no limit is known:
then nothing is refused, and only the answers (429 and its kin) hold the poller back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import psycopg
from pydantic import SecretStr

from marketflow.contracts.sources import Source
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.venues.polls import POLLS

Connection = psycopg.Connection[tuple[Any, ...]]

MONTH_S = 30 * 86_400
USUAL_INTERVAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is allowed, in calls, or in `unit` where the venue counts another thing. None: no limit that is known."""

    name: str
    calls_per_minute: int | None
    calls_per_month: int | None
    calls_per_hour: int | None = None
    calls_per_day: int | None = None
    needs_key: bool = True
    unit: str = "calls"

    def windows(self) -> Iterator[tuple[int, int, str]]:
        """Each limit there is: seconds, what is allowed in them, and how they are called."""
        for seconds, allowed, name in (
            (MONTH_S, self.calls_per_month, "in 30 days"),
            (86_400, self.calls_per_day, "a day"),
            (3_600, self.calls_per_hour, "an hour"),
            (60, self.calls_per_minute, "a minute"),
        ):
            if allowed is not None:
                yield seconds, allowed, name


def _by_name(*plans: Plan) -> dict[str, Plan]:
    return {plan.name: plan for plan in plans}


PLANS: dict[str, dict[str, Plan]] = {
    # docs.coingecko.com (errors and rate limits) and its pricing page, read 2026. Keyless is shared by all behind one
    # address; Demo says 100 a minute on one page and 30 on others.
    "coingecko": _by_name(
        Plan("keyless", 5, None, needs_key=False),
        Plan("demo", 30, 10_000),
        Plan("basic", 250, 100_000),
        Plan("analyst", 500, 500_000),
        Plan("lite", 500, 2_000_000),
        Plan("pro", 500, 2_000_000),
    ),
    # coincapapi.mintlify.app, read 2026: 2,500 credits a month, at least one a call; what a large page costs more, the
    # limit per minute and what a paid plan allows are not documented there.
    "coincap": _by_name(Plan("free", None, 2_500), Plan("paid", None, None)),
    # max_calls of an error body that a user captured (also 20 a second); the free tier ended on 2026-05-21. Other paid
    # tiers allow more, which is not documented.
    "cryptocompare": _by_name(Plan("paid", 300, 75_000, calls_per_hour=3_000, calls_per_day=10_000)),
    # github.com/binance/binance-spot-api-docs, read 2026: REQUEST_WEIGHT of an address; no key, no month.
    "binance_prices": _by_name(Plan("public", 6_000, None, needs_key=False, unit="weight")),
    # venue new: plan
}


def plan_of(settings: Settings, source: Source) -> Plan:
    """The plan that is set for a source; its only one where there is no choice."""
    plans = PLANS[source.name]
    chosen: str | None = getattr(settings, f"{source.name}_plan", None)
    return next(iter(plans.values())) if chosen is None else plans[chosen]


def fastest_interval_s(plan: Plan, units: int) -> float:
    """The shortest interval at which a poll that costs `units` fits the plan."""
    return max((units * seconds / allowed for seconds, allowed, _ in plan.windows()), default=0.0)


def effective_interval_s(settings: Settings, source: Source) -> float:
    """Seconds between polls: what was asked, else 30 s, or as fast as a live plan allows where that is slower."""
    wanted: float | None = getattr(settings, f"{source.name}_poll_interval_s")
    if wanted is not None:
        return wanted
    if settings.dataset != "live":
        return USUAL_INTERVAL_S
    fastest_s = fastest_interval_s(plan_of(settings, source), POLLS[source.name].units(settings))
    return max(USUAL_INTERVAL_S, float(math.ceil(fastest_s)))


def check(settings: Settings, source: Source) -> None:
    """Refuse live settings that must exceed their plan, with the arithmetic. The simulator has no quota."""
    if settings.dataset != "live":
        return
    plan, name = plan_of(settings, source), f"MARKETFLOW_{source.name.upper()}"
    key: SecretStr | None = getattr(settings, f"{source.name}_api_key", None)
    if key is not None and not plan.needs_key:
        raise ConfigurationError(f"{name}_PLAN: a key is set, but plan {plan.name} takes none; name its plan")
    if key is None and plan.needs_key:
        raise ConfigurationError(f"{name}_API_KEY: plan {plan.name} needs a key")
    poll, interval_s = POLLS[source.name], effective_interval_s(settings, source)
    units = poll.units(settings)
    for seconds, allowed, window in plan.windows():
        spent = units * seconds / interval_s
        if spent > allowed:
            raise ConfigurationError(
                f"{name}_POLL_INTERVAL_S: {poll.made_of(settings)} every {interval_s:g} s is "
                f"{spent:,.{0 if seconds == MONTH_S else 1}f} {plan.unit} {window}, plan {plan.name} allows "
                f"{allowed:,}: {_advice(source, plan, units)}"
            )


def _advice(source: Source, plan: Plan, units: int) -> str:
    fewer = POLLS[source.name].fewer
    ways = [f"poll every {math.ceil(fastest_interval_s(plan, units))} s or more"]
    ways += [fewer] if fewer else []
    ways += [f"use a larger MARKETFLOW_{source.name.upper()}_PLAN"] if len(PLANS[source.name]) > 1 else []
    return ", or ".join(ways)


@dataclass(slots=True)
class Budget:
    """What was spent this month, by this process and, once Postgres has said so, by those before it.

    `source` is the source's name; counted is what its plan counts: calls, or weight.
    """

    source: str
    plan: Plan
    limited: bool
    month: date = date(1970, 1, 1)
    spent_before: int | None = None
    spent_here: int = 0

    def spend(self, now: datetime, units: int = 1) -> None:
        """One request is about to be sent, which its plan counts as so many."""
        month = now.astimezone(UTC).date().replace(day=1)
        if month != self.month:
            self.month, self.spent_before, self.spent_here = month, None, 0
        self.spent_here += units

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
        """Seconds that each unit spent has to last to keep within the limit per minute."""
        return 60 / self.plan.calls_per_minute if self.limited and self.plan.calls_per_minute else 0.0

    def interval_s(self, wanted_s: float, units: int, now: datetime) -> float:
        """The wanted interval, or a longer one that makes what is left last until the month ends."""
        left = self.left
        if left is None:
            return wanted_s
        following = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        first_of_next = datetime(*following, 1, tzinfo=UTC)
        remaining_s = (first_of_next - now).total_seconds()
        return remaining_s if left < units else max(wanted_s, remaining_s * units / left)

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
