"""A plan is never exceeded by configuration, and what is left of a month is spent evenly: the same for every source."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from marketflow.contracts.sources import SOURCES
from marketflow.errors import ConfigurationError
from marketflow.ingest.quotas import PLANS, Budget, check, effective_interval_s, fastest_interval_s
from marketflow.settings import Settings
from marketflow.venues.polls import POLLS

COINGECKO, COINCAP = SOURCES["coingecko"], SOURCES["coincap"]
CRYPTOCOMPARE, BINANCE = SOURCES["cryptocompare"], SOURCES["binance_prices"]
DEMO = PLANS["coingecko"]["demo"]
KEYED = {"coingecko": "demo", "coincap": "free", "cryptocompare": "paid"}


def settings(**changes: object) -> Settings:
    return Settings(**{"dataset": "live", "coingecko_plan": "demo", "coingecko_api_key": "secret", **changes})  # type: ignore[arg-type]


def test_every_polled_source_has_plans_and_a_description_and_no_feed_has() -> None:
    # an exchange that ccxt polls has that library's own limits
    polled = {name for name, source in SOURCES.items() if not source.is_feed} - {"ccxt"}
    assert set(PLANS) == set(POLLS) == polled == {"coingecko", "coincap", "cryptocompare", "binance_prices"}
    for name in polled - {"binance_prices"}:
        assert set(PLANS[name]) == set(Settings.model_fields[f"{name}_plan"].annotation.__args__)  # type: ignore[union-attr]


def test_every_half_minute_on_the_demo_plan_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        check(settings(coingecko_poll_interval_s=30), COINGECKO)
    assert str(refusal.value) == (
        "MARKETFLOW_COINGECKO_POLL_INTERVAL_S: 1 page(s) x 1 currency(ies) every 30 s is 86,400 calls in 30 days, "
        "plan demo allows 10,000: poll every 260 s or more, or lower MARKETFLOW_COINGECKO_ASSETS, "
        "or use a larger MARKETFLOW_COINGECKO_PLAN"
    )


@pytest.mark.parametrize(
    ("source", "asked", "says"),
    [
        (
            COINCAP,
            {"coincap_api_key": "k", "coincap_poll_interval_s": 30},
            "MARKETFLOW_COINCAP_POLL_INTERVAL_S: 1 call(s) every 30 s is 86,400 calls in 30 days, "
            "plan free allows 2,500: poll every 1037 s or more, or use a larger MARKETFLOW_COINCAP_PLAN",
        ),
        (
            CRYPTOCOMPARE,
            {"cryptocompare_api_key": "k", "cryptocompare_poll_interval_s": 30},
            "MARKETFLOW_CRYPTOCOMPARE_POLL_INTERVAL_S: 1 call(s) every 30 s is 86,400 calls in 30 days, "
            "plan paid allows 75,000: poll every 35 s or more, or shorten MARKETFLOW_CRYPTOCOMPARE_SYMBOLS",
        ),
        (
            BINANCE,
            {"binance_prices_poll_interval_s": 0.01},
            "MARKETFLOW_BINANCE_PRICES_POLL_INTERVAL_S: 1 call(s) of weight 2 every 0.01 s is 12,000.0 weight a "
            "minute, plan public allows 6,000: poll every 1 s or more",
        ),
    ],
)
def test_no_sources_plan_is_exceeded_and_what_to_change_is_said(source, asked, says) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError) as refusal:
        check(settings(**asked), source)
    assert str(refusal.value) == says


@pytest.mark.parametrize("source", [COINGECKO, COINCAP, CRYPTOCOMPARE])
def test_the_interval_that_a_refusal_names_is_accepted_and_a_second_less_is_not(source) -> None:  # type: ignore[no-untyped-def]
    def asked(interval_s: float) -> Settings:
        return settings(**{f"{source.name}_api_key": "k", f"{source.name}_poll_interval_s": interval_s})

    with pytest.raises(ConfigurationError) as refusal:
        check(asked(1), source)
    named = int(re.search(r"poll every (\d+) s or more", str(refusal.value))[1])  # type: ignore[index]
    check(asked(named), source)
    with pytest.raises(ConfigurationError):
        check(asked(named - 1), source)


def test_calls_a_minute_are_counted_over_pages_and_currencies() -> None:
    asked = settings(
        coingecko_plan="keyless",
        coingecko_api_key=None,
        coingecko_assets=500,
        vs_currencies=("usd", "eur"),
        coingecko_poll_interval_s=30,
    )
    assert POLLS["coingecko"].units(asked) == 4
    with pytest.raises(ConfigurationError, match=r"2 page\(s\) x 2 .* is 8\.0 calls a minute, plan keyless allows 5"):
        check(asked, COINGECKO)
    assert fastest_interval_s(PLANS["coingecko"]["keyless"], 4) == 48
    check(settings(**{**asked.model_dump(), "coingecko_poll_interval_s": 48}), COINGECKO)


@pytest.mark.parametrize("name", KEYED)
def test_a_plan_that_needs_a_key_is_refused_without_one(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MARKETFLOW_{name.upper()}_API_KEY: plan {KEYED[name]} needs a key"):
        check(settings(**{f"{name}_api_key": None, f"{name}_poll_interval_s": 3000}), SOURCES[name])
    check(settings(**{f"{name}_api_key": "k", f"{name}_poll_interval_s": 3000}), SOURCES[name])


def test_a_key_for_a_plan_that_takes_none_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="MARKETFLOW_COINGECKO_PLAN: a key is set, but plan keyless takes none"
    ):
        check(settings(coingecko_plan="keyless", coingecko_poll_interval_s=300), COINGECKO)


def test_the_simulator_has_no_quota() -> None:
    for name in POLLS:
        check(settings(**{"dataset": "sim", f"{name}_poll_interval_s": 0.5}), SOURCES[name])
    budget = Budget("coingecko", DEMO, limited=False)
    assert (budget.left, budget.spacing_s) == (None, 0.0)
    assert budget.interval_s(0.5, 1, datetime(2026, 7, 31, 23, tzinfo=UTC)) == 0.5


def test_what_is_left_of_a_month_lasts_to_its_end() -> None:
    budget = Budget("coingecko", DEMO, limited=True)
    noon = datetime(2026, 12, 31, 12, tzinfo=UTC)  # twelve hours before the month ends
    budget.spend(noon)
    budget.spent_before = 9_000
    assert budget.left == 999
    assert budget.interval_s(30, 1, noon) == pytest.approx(12 * 3600 / 999)
    assert budget.interval_s(300, 1, noon) == 300
    budget.spent_before = 10_000
    assert budget.left == 0
    assert budget.interval_s(30, 1, noon) == 12 * 3600


def test_a_new_month_begins_with_the_whole_quota() -> None:
    budget = Budget("coingecko", DEMO, limited=True)
    budget.spend(datetime(2026, 7, 31, 23, 59, tzinfo=UTC))
    budget.spent_before = 9_999
    budget.spend(datetime(2026, 8, 1, tzinfo=UTC))
    assert budget.left == 9_999


def test_weight_is_spent_as_weight_and_spaced_by_it() -> None:
    budget = Budget("binance_prices", PLANS["binance_prices"]["public"], limited=True)
    budget.spend(datetime(2026, 7, 7, tzinfo=UTC), 40)
    budget.spend(datetime(2026, 7, 7, tzinfo=UTC), 2)
    assert (budget.spent_here, budget.left, budget.allowed) == (42, None, None)
    assert budget.spacing_s * 6_000 == pytest.approx(60)


def test_a_plan_without_a_known_limit_holds_nothing_back() -> None:
    unknown = PLANS["coincap"]["paid"]
    assert list(unknown.windows()) == []
    assert fastest_interval_s(unknown, 7) == 0
    assert Budget("coincap", unknown, limited=True).spacing_s == 0
    check(settings(coincap_plan="paid", coincap_api_key="k", coincap_poll_interval_s=0.1), COINCAP)


@pytest.mark.parametrize(
    ("source", "asked", "interval_s"),
    [
        (
            COINGECKO,
            {"coingecko_plan": "keyless", "coingecko_api_key": None},
            30.0,
        ),  # 12 s by the minute: the usual 30 s
        (COINGECKO, {"coingecko_plan": "demo"}, 260.0),  # 2,592,000 s / 10,000 calls, rounded up
        (COINGECKO, {"coingecko_plan": "analyst"}, 30.0),
        (COINGECKO, {"coingecko_plan": "demo", "coingecko_poll_interval_s": 600}, 600.0),
        (COINGECKO, {"dataset": "sim", "coingecko_plan": "demo"}, 30.0),
        (COINCAP, {}, 1037.0),  # 2,592,000 s / 2,500 calls, rounded up
        (COINCAP, {"coincap_plan": "paid"}, 30.0),
        (CRYPTOCOMPARE, {}, 35.0),  # 34.56 s by the month; 8.64 s by the day would be faster
        (CRYPTOCOMPARE, {"vs_currencies": "usd,eur"}, 35.0),  # both in one call
        (BINANCE, {}, 30.0),
    ],
)
def test_without_an_interval_the_poll_is_as_fast_as_the_plan_allows(source, asked, interval_s) -> None:  # type: ignore[no-untyped-def]
    assert effective_interval_s(settings(**asked), source) == interval_s
