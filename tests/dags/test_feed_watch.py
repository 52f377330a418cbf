"""How long each source may say nothing, and the line of a round about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from marketflow.contracts.sources import BY_SERVICE
from marketflow.settings import load
from marketflow.stack.sources import Source
from marketflow_airflow.feed_watch import line, patience_s

NOW = datetime(2026, 7, 7, 12, 0, 10, tzinfo=UTC)


def source(service, **told):
    nothing = Source(service, BY_SERVICE[service].venue, "running", None, None, None, None, None, None, 0, 0, None)
    return replace(nothing, **told)


def test_patience_goes_by_each_pollers_own_interval() -> None:
    settings = load(
        dataset="live", coingecko_plan="demo", binance_prices_poll_interval_s=10, feed_silence_s=30, coincap_api_key="k"
    )
    patience = {service: patience_s(settings, service) for service in BY_SERVICE}
    assert patience["producer-coingecko"] == 3 * 260 + 30
    assert patience["producer-binance-prices"] == 3 * 10 + 30
    assert patience["producer-coincap"] == 3 * 1037 + 30
    assert patience["producer-cryptocompare"] == 3 * 35 + 30
    assert patience["producer-coinbase"] == patience["producer-binance"] == 90


def test_the_rounds_line_says_of_a_poller_what_failed_and_of_a_feed_what_waits() -> None:
    assert (
        line(source("producer-binance-prices", failed_polls=3), NOW)
        == "producer-binance-prices: last message unknown, 3 polls without a price"
    )
    assert (
        line(
            source(
                "producer-coinbase",
                last_message_at=NOW - timedelta(seconds=3),
                queue_messages=4,
                open_gaps=2,
                missing_trades=11,
            ),
            NOW,
        )
        == "producer-coinbase: last message 3 s ago, 4 queued, 2 open gaps (11 trades)"
    )
