"""The aggregator's facts: their own cadence, never back in time, bound to the exchange's mids."""

from __future__ import annotations

from itertools import pairwise

import pytest

from marketflow.errors import ConfigurationError
from marketflow.simulator import universe
from marketflow.simulator.assets import AssetMarket, LastPrice, Quotation

START_US = 1_785_542_400_000_000
SECOND_US = 1_000_000


def market(
    mids: dict[str, float] | None = None, last: dict[str, LastPrice] | None = None, **kwargs: object
) -> AssetMarket:
    options = {"currencies": ("usd",), "seed": 1, **kwargs}
    return AssetMarket(universe.load(), mid_of=(mids or {}).get, last=last or {}, **options)  # type: ignore[arg-type]


def hour_of(assets: AssetMarket, step_us: int = 100_000, minutes: int = 10) -> dict[str, list[Quotation]]:
    assets.start(START_US)
    facts: dict[str, list[Quotation]] = {}
    for now_us in range(START_US, START_US + minutes * 60 * SECOND_US, step_us):
        for quotation in assets.advance(now_us):
            assert quotation.last_updated_us <= now_us
            facts.setdefault(quotation.asset_id, []).append(quotation)
    return facts


def test_last_updated_moves_at_each_coins_own_pace_and_never_back() -> None:
    facts = hour_of(market())
    assert len(facts) == len(universe.load()) >= 250
    gaps = [
        (later.last_updated_us - earlier.last_updated_us) / SECOND_US
        for quotations in facts.values()
        for earlier, later in pairwise(quotations)
    ]
    assert min(gaps) > 19.9
    assert max(gaps) < 75.1
    usual = [gap for gap in gaps if gap <= 30]
    assert 0.75 < len(usual) / len(gaps) < 0.95, "most within 30 s, some so slow that a poll sees them twice"
    assert all(quotation.last_updated_us % 1000 == 0 for quotations in facts.values() for quotation in quotations)


def test_traded_coins_have_the_exchanges_mid_and_wrapped_coins_follow() -> None:
    mids = {"bitcoin": 63_519.4, "ethereum": 1774.925}
    assets = market(mids)
    before = hour_of(assets, minutes=3)
    mids["bitcoin"], mids["ethereum"] = 70_000.0, 1900.0
    after = {fact.asset_id: fact for fact in assets.advance(START_US + 300 * SECOND_US)}
    assert {fact.price for fact in before["bitcoin"]} == {"63519"}
    assert {fact.price for fact in before["ethereum"]} == {"1774.92"}
    assert (after["bitcoin"].price, after["ethereum"].price) == ("70000", "1900.0")
    assert float(after["wrapped-bitcoin"].price) == pytest.approx(70_000, rel=0.01)
    assert float(after["weth"].price) == pytest.approx(1900, rel=0.01)
    assert float(after["tether"].price) == pytest.approx(1, abs=0.002)
    betas = [float(after[asset].price) / float(before[asset][-1].price) for asset in ("solana", "cardano", "dogecoin")]
    assert min(betas) > 1.03, "a coin moves with the market"


def test_a_market_that_goes_on_keeps_its_prices_and_its_time() -> None:
    last = {coin.id: LastPrice(float(coin.price) * 2, START_US + 5 * SECOND_US) for coin in universe.load()}
    facts = hour_of(market(last=last))
    assert min(fact.last_updated_us for quotations in facts.values() for fact in quotations) > START_US + 5 * SECOND_US
    assert float(facts["solana"][0].price) == pytest.approx(2 * 78.4, rel=0.02)


def test_every_currency_gets_its_own_fact_of_the_same_moment() -> None:
    facts = hour_of(market(currencies=("usd", "eur")), minutes=1)
    dollar, euro = facts["solana"][:2]
    assert (dollar.vs_currency, euro.vs_currency) == ("usd", "eur")
    assert dollar.last_updated_us == euro.last_updated_us
    assert float(dollar.price) / float(euro.price) == pytest.approx(1.08, rel=1e-3)


def test_an_unknown_currency_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="dublones"):
        market(currencies=("dublones",))
