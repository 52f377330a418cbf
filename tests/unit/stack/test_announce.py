"""What a plan's interval allows is said before anything is started, with the arithmetic, for every polled source."""

from __future__ import annotations

import pytest

from marketflow.contracts.sources import SOURCES
from marketflow.errors import ConfigurationError
from marketflow.ingest.quotas import effective_interval_s
from marketflow.settings import load
from marketflow.stack.announce import check_plans, warm_up

BINANCE = [
    "Binance plan public: 1 call of weight 2 every 30 s = 4 weight a minute of 6,000",
    "change_1min, change_5min and movers exist: 30 s is within the tolerance of 90 s",
]


def test_a_demo_plan_is_told_that_movers_will_often_be_missing_and_who_has_them() -> None:
    first, second, *binance, last = warm_up(load(dataset="live", coingecko_plan="demo", coingecko_api_key="k"))
    assert first == "CoinGecko plan demo: 1 call every 260 s = 9,969 calls in 30 days"
    assert second == (
        "change_1min, change_5min and movers will often be null: one poll every 260 s leaves no observation "
        "between 60 and 150 s (300 and 390 s) old; 90 s or less needs a larger plan"
    )
    assert binance == BINANCE
    assert last == "movers come from Binance's keyless 24 h ticker every 30 s; CoinGecko is too slow for them"


def test_a_paid_plan_is_told_that_they_exist() -> None:
    first, second, *binance = warm_up(load(dataset="live", coingecko_plan="analyst", coingecko_api_key="k"))
    assert first == "CoinGecko plan analyst: 1 call every 30 s = 86,400 calls in 30 days"
    assert second.startswith("change_1min, change_5min and movers exist: 30 s is within the tolerance of 90 s")
    assert binance == BINANCE


def test_a_free_plan_of_coincap_has_no_change_and_no_volatility() -> None:
    first, second, third, last = warm_up(load(dataset="live", sources="coincap", coincap_api_key="k"))
    assert first == "CoinCap plan free: 1 call every 1037 s = 2,500 calls in 30 days"
    assert second.startswith("change_1min, change_5min and movers will often be null: one poll every 1037 s")
    assert third == "volatility_5m will be null: it needs two observations in 300 s, and there is one at most"
    assert last == (
        "no active source is polled fast enough for movers; binance_prices in MARKETFLOW_SOURCES is, without a key"
    )


@pytest.mark.parametrize(
    ("interval_s", "there", "missing"),
    [
        (100, "change_1min, change_5min and movers exist where prices keep the step", None),  # 100 s and 300 s old
        (160, "change_5min and movers exist where prices keep the step", "change_1min will often be null"),  # 320 s
        (120, "change_1min, change_5min and movers exist where prices keep the step", None),  # 120 s and 360 s
        (150, "change_1min, change_5min and movers exist where", None),  # just: 150 s and 300 s
        (200, None, "change_1min, change_5min and movers will often be null"),  # 200 s, 400 s
    ],
)
def test_an_interval_beyond_the_tolerance_has_what_its_multiples_reach(
    interval_s: int, there: str | None, missing: str | None
) -> None:
    lines = warm_up(load(dataset="live", sources="coingecko", coingecko_poll_interval_s=interval_s))
    for measure, back_s in (("change_1min", 60), ("change_5min", 300)):
        reached = any(back_s <= age <= back_s + 90 for age in range(interval_s, 1000, interval_s))
        assert reached == any(measure in line and "exist" in line for line in lines), (measure, lines)
    assert [line for line in lines if " exist " in line and not line.startswith(str(there))] == []
    assert [line for line in lines if " often be null" in line and not line.startswith(str(missing))] == []


def test_a_plan_that_must_be_exceeded_stops_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="MARKETFLOW_COINCAP_API_KEY: plan free needs a key"):
        check_plans(load(dataset="live", sources="coingecko,coincap"))
    check_plans(load(dataset="live"))
    check_plans(load(dataset="sim", coincap_poll_interval_s=1))


def test_a_source_without_a_plan_has_nothing_to_refuse_and_no_measures_to_announce() -> None:
    polled = load(dataset="live", sources=("ccxt",), ccxt_exchanges=("kraken",), ccxt_poll_interval_s=7)
    check_plans(polled)
    assert warm_up(polled) == []
    assert effective_interval_s(polled, SOURCES["ccxt"]) == 7
