"""What can exist at a given polling interval, with the arithmetic, said before anything is started."""

from __future__ import annotations

import math

from marketflow.contracts.sources import Source
from marketflow.ingest import quotas
from marketflow.settings import Settings
from marketflow.venues.polls import POLLS

# over how many seconds each measure looks back; movers are ranked by change_5min
_LOOKS_BACK_S = {"change_1min": 60, "change_5min": 300, "movers": 300}
_WINDOW_S = 300


def polled(settings: Settings) -> list[Source]:
    """The active sources that are polled for prices, each with a plan."""
    return [source for source in settings.active_sources if source.name in POLLS]


def check_plans(settings: Settings) -> None:
    """Refuse what a poller would refuse at its own start, before anything runs."""
    for source in polled(settings):
        quotas.check(settings, source)


def warm_up(settings: Settings) -> list[str]:
    """Lines for `make up DATASET=live`: which measures each polled source's interval allows.

    change over h seconds needs an observation between h and h + tolerance seconds old, so an interval of at most the
    tolerance always has one; a longer interval has one only where a multiple of it falls there.
    """
    found = [line for source in polled(settings) for line in _lines(settings, source)]
    return [*found, *_movers(settings)]


def _lines(settings: Settings, source: Source) -> list[str]:
    interval_s, tolerance_s = quotas.effective_interval_s(settings, source), settings.change_tolerance_s
    there = [name for name in _LOOKS_BACK_S if _has(settings, source, name)]
    missing = [name for name in _LOOKS_BACK_S if name not in there]
    lines = [_arithmetic(settings, source, interval_s)]
    if there and interval_s <= tolerance_s:
        lines.append(f"{_listed(there)} exist: {interval_s:.0f} s is within the tolerance of {tolerance_s} s")
    elif there:
        lines.append(f"{_listed(there)} exist where prices keep the step: {_ages(there, tolerance_s)} holds one")
    if missing:
        fastest_s = quotas.fastest_interval_s(quotas.plan_of(settings, source), POLLS[source.name].units(settings))
        larger = " needs a larger plan" if fastest_s > tolerance_s else " has them"
        lines.append(
            f"{_listed(missing)} will often be null: one poll every {interval_s:.0f} s leaves no observation "
            f"{_ages(missing, tolerance_s)} old; {tolerance_s} s or less{larger}"
        )
    if interval_s >= _WINDOW_S:
        lines.append(
            f"volatility_5m will be null: it needs two observations in {_WINDOW_S} s, and there is one at most"
        )
    return lines


def _has(settings: Settings, source: Source, name: str) -> bool:
    """Whether a regular poll leaves an observation where the measure looks for one."""
    interval_s, back_s = quotas.effective_interval_s(settings, source), _LOOKS_BACK_S[name]
    first_at_or_before_s = math.ceil(back_s / interval_s) * interval_s
    return first_at_or_before_s <= back_s + settings.change_tolerance_s


def _arithmetic(settings: Settings, source: Source, interval_s: float) -> str:
    poll, plan = POLLS[source.name], quotas.plan_of(settings, source)
    calls, units = len(poll.requests(settings)), poll.units(settings)
    asked = f"{poll.title} plan {plan.name}: {calls} call{'s' if calls > 1 else ''}"
    if plan.unit != "calls":
        spent = f"{units * 60 / interval_s:,.0f} {plan.unit} a minute of {plan.calls_per_minute:,}"
        return f"{asked} of {plan.unit} {units} every {interval_s:.0f} s = {spent}"
    return f"{asked} every {interval_s:.0f} s = {units * quotas.MONTH_S / interval_s:,.0f} calls in 30 days"


def _ages(names: list[str], tolerance_s: int) -> str:
    """Between 60 and 150 s (300 and 390 s)."""
    first, *others = dict.fromkeys(f"{_LOOKS_BACK_S[name]} and {_LOOKS_BACK_S[name] + tolerance_s} s" for name in names)
    return f"between {first}{''.join(f' ({other})' for other in others)}"


def _listed(names: list[str]) -> str:
    """a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _movers(settings: Settings) -> list[str]:
    """Who brings the movers, where one of the sources is too slow for them."""
    sources = polled(settings)
    slow = [POLLS[source.name].title for source in sources if not _has(settings, source, "movers")]
    fast = [source for source in sources if _has(settings, source, "movers")]
    if not slow:
        return []
    if not fast:
        return [
            "no active source is polled fast enough for movers; binance_prices in MARKETFLOW_SOURCES is, without a key"
        ]
    who = " and ".join(
        "Binance's keyless 24 h ticker" if source.name == "binance_prices" else POLLS[source.name].title
        for source in fast
    )
    every_s = max(quotas.effective_interval_s(settings, source) for source in fast)
    return [f"movers come from {who} every {every_s:.0f} s; {_listed(slow)} {_verb(slow)} too slow for them"]


def _verb(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
