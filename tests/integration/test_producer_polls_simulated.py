"""Every poller against the simulated venues: a page that says nothing or speaks of another currency prices nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.records import AssetPrice, Parsed, RejectedItem
from marketflow.contracts.sources import SOURCES
from marketflow.settings import Settings
from marketflow.stack.servers import free_ports
from tests.integration.producer_stage import Stored, market, producer, stored, until

CHANNELS = {
    "coingecko": "markets",
    "coincap": "assets",
    "cryptocompare": "pricemultifull",
    "binance_prices": "ticker_24hr",
}
AGGREGATORS = ("coingecko", "coincap", "cryptocompare")
STABLE = {"tether", "usd-coin", "USDT", "USDC"}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_poller_outlives_its_venues_bad_pages_and_none_becomes_a_wrong_price(
    embedded: Settings, tmp_path: Path, name: str
) -> None:
    source, (port,) = SOURCES[name], free_ports(1)
    orders = {"empty_object": "200_", "empty_array": "200_", "http_429": "429", "http_5xx": "500"}
    orders |= {"currency_switch": "200_currency_suspect"} if name in AGGREGATORS else {}

    def pages() -> list[Stored]:
        found = stored(embedded, "sim.crypto.prices.raw", source.venue)
        return [one for one in found if one.headers["channel"] == CHANNELS[name]][before:]

    before = 0
    before = len(pages())
    settings = {f"{name}_poll_interval_s": 0.5, "coincap_api_key": "k", "cryptocompare_api_key": "k"}
    with (
        market(embedded, tmp_path / "market", "BTC-USDT", "--rate", "5") as made,
        producer(embedded, made, name, "producer", **{source.metrics_port_setting: port, **settings}) as poller,
    ):
        until(lambda: len(pages()) >= 2, "two polls")
        for fault in orders:
            told = len(poller.events("answer"))
            made.control("faults", {"fault": fault, "venue": source.venue, "count": 1, "retry_after": 1})
            until(lambda told=told: len(poller.events("answer")) > told, fault)  # type: ignore[misc]
        good = len(pages())
        until(lambda: len(pages()) >= good + 2, "pages after them")
        assert poller.stop() == 0, poller.output
    assert len(poller.events("answer")) == len(orders)
    reasons: Counter[str] = Counter()
    prices: list[AssetPrice] = []
    for page in pages():
        outcome = venues.parse(page.headers, page.value)
        if isinstance(outcome, Parsed):
            reasons.update(item.reason for item in outcome.items if isinstance(item, RejectedItem))
            prices += [item for item in outcome.items if isinstance(item, AssetPrice)]
    assert {item.source for item in prices} == {source.venue}
    if name in AGGREGATORS:
        assert set(reasons) == {"currency_suspect"}
        near_one = [float(item.price) for item in prices if item.asset_id in STABLE]
        assert len(near_one) >= 4
        assert all(price == pytest.approx(1, abs=0.02) for price in near_one)
    else:
        assert (set(reasons), {item.asset_id for item in prices}) == (set(), {"BTCUSDT"})
