"""What a plan's interval allows is said before anything is started, with the arithmetic."""

from __future__ import annotations

from marketflow.settings import load
from marketflow.stack.announce import warm_up


def test_a_demo_plan_is_told_that_movers_will_often_be_missing() -> None:
    first, second = warm_up(load(dataset="live", coingecko_plan="demo", coingecko_api_key="k"))
    assert first == "CoinGecko plan demo: 1 call every 260 s = 9,969 calls in 30 days"
    assert "change_1min, change_5min and movers will often be null" in second
    assert "between 60 and 150 s (300 and 390 s) old" in second


def test_a_paid_plan_is_told_that_they_exist() -> None:
    first, second = warm_up(load(dataset="live", coingecko_plan="analyst", coingecko_api_key="k"))
    assert first == "CoinGecko plan analyst: 1 call every 30 s = 86,400 calls in 30 days"
    assert second.startswith("change_1min, change_5min and movers exist: 30 s is within the tolerance of 90 s")
