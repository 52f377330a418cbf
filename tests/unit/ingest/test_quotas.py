"""A plan is never exceeded by configuration, and what is left of a month is spent evenly."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from marketflow.errors import ConfigurationError
from marketflow.ingest.quotas import (
    COINGECKO_PLANS,
    Budget,
    calls_per_poll,
    check_coingecko,
    effective_interval_s,
    fastest_interval_s,
    pages_per_currency,
)
from marketflow.settings import Settings


def settings(**changes: object) -> Settings:
    return Settings(**{"dataset": "live", "coingecko_plan": "demo", "coingecko_api_key": "secret", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("assets", "pages", "per_page"),
    [(1, 1, 1), (100, 1, 100), (250, 1, 250), (251, 2, 126), (300, 2, 150), (1000, 4, 250)],
)
def test_pages_bring_at_least_the_assets_asked_for(assets: int, pages: int, per_page: int) -> None:
    assert pages_per_currency(assets) == (pages, per_page)
    assert pages * per_page >= assets
    assert per_page <= 250


def test_every_half_minute_on_the_demo_plan_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        check_coingecko(settings(coingecko_poll_interval_s=30))
    assert str(refusal.value) == (
        "MARKETFLOW_COINGECKO_POLL_INTERVAL_S: 1 page(s) x 1 currency(ies) every 30 s is 86,400 calls in 30 days, "
        "plan demo allows 10,000: poll every 260 s or more, or lower MARKETFLOW_COINGECKO_ASSETS, "
        "or use a larger MARKETFLOW_COINGECKO_PLAN"
    )


def test_the_interval_that_the_refusal_names_is_accepted() -> None:
    check_coingecko(settings(coingecko_poll_interval_s=260))
    check_coingecko(settings(coingecko_poll_interval_s=30, coingecko_plan="basic"))


def test_calls_a_minute_are_counted_over_pages_and_currencies() -> None:
    asked = settings(
        coingecko_plan="keyless",
        coingecko_api_key=None,
        coingecko_assets=500,
        vs_currencies=("usd", "eur"),
        coingecko_poll_interval_s=30,
    )
    assert calls_per_poll(asked) == 4
    with pytest.raises(ConfigurationError, match=r"2 page\(s\) x 2 .* is 8\.0 calls a minute, plan keyless allows 5"):
        check_coingecko(asked)
    assert fastest_interval_s(COINGECKO_PLANS["keyless"], 4) == 48
    check_coingecko(settings(**{**asked.model_dump(), "coingecko_poll_interval_s": 48}))


def test_a_plan_and_its_key_belong_together() -> None:
    with pytest.raises(ConfigurationError, match="MARKETFLOW_COINGECKO_API_KEY: plan demo needs a key"):
        check_coingecko(settings(coingecko_api_key=None, coingecko_poll_interval_s=300))
    with pytest.raises(ConfigurationError, match="MARKETFLOW_COINGECKO_PLAN: a key is set"):
        check_coingecko(settings(coingecko_plan="keyless", coingecko_poll_interval_s=300))


def test_the_simulator_has_no_quota() -> None:
    check_coingecko(settings(dataset="sim", coingecko_poll_interval_s=0.5))
    budget = Budget("coingecko", COINGECKO_PLANS["demo"], limited=False)
    assert (budget.left, budget.spacing_s) == (None, 0.0)
    assert budget.interval_s(0.5, 1, datetime(2026, 7, 31, 23, tzinfo=UTC)) == 0.5


def test_what_is_left_of_a_month_lasts_to_its_end() -> None:
    budget = Budget("coingecko", COINGECKO_PLANS["demo"], limited=True)
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
    budget = Budget("coingecko", COINGECKO_PLANS["demo"], limited=True)
    budget.spend(datetime(2026, 7, 31, 23, 59, tzinfo=UTC))
    budget.spent_before = 9_999
    budget.spend(datetime(2026, 8, 1, tzinfo=UTC))
    assert budget.left == 9_999


@pytest.mark.parametrize(
    ("asked", "interval_s"),
    [
        ({"coingecko_plan": "keyless", "coingecko_api_key": None}, 30.0),  # 12 s by the minute: the usual 30 s
        ({"coingecko_plan": "demo"}, 260.0),  # 2,592,000 s / 10,000 calls, rounded up
        ({"coingecko_plan": "analyst"}, 30.0),
        ({"coingecko_plan": "demo", "coingecko_poll_interval_s": 600}, 600.0),
        ({"dataset": "sim", "coingecko_plan": "demo"}, 30.0),
    ],
)
def test_without_an_interval_the_poll_is_as_fast_as_the_plan_allows(
    asked: dict[str, object], interval_s: float
) -> None:
    assert effective_interval_s(settings(**asked)) == interval_s
