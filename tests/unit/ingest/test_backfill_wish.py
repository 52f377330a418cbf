"""A wish that cannot be met is refused with what can; times are UTC unless they say otherwise, and that is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from marketflow.errors import ConfigurationError
from marketflow.ingest.backfill import Report, _duration
from marketflow.ingest.backfill_wish import Wish, moment
from marketflow.settings import Settings
from marketflow.stack.backfill import Given, render

NOW = datetime(2026, 11, 20, 7, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
GOOD = Wish("binance", "BTC-USDT", "trades", NOW - 3 * HOUR, NOW - 2 * HOUR)
MINUTES = replace(GOOD, venue="cryptocompare", product_id="BTC-USD", what="candles:1m")


def settings(tmp_path: Path, **changes: object) -> Settings:
    return Settings(home=tmp_path, _env_file=None, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (replace(GOOD, venue="kraken"), "venue 'kraken' has no history of trades; known: coinbase_exchange, "),
        (replace(GOOD, venue="cryptocompare"), "no history of trades; known: coinbase_exchange, coinbase_"),
        (replace(MINUTES, venue="coingecko"), "no history of candles; known: coinbase_exchange, coinbase_advanced, "),
        (replace(GOOD, product_id="BTC-USD"), "product 'BTC-USD' is none of binance; known: BTC-USDT, ETH-USDT"),
        (replace(GOOD, what="quotes"), "'quotes' is not to be had: trades, or candles:1m"),
        (replace(GOOD, what="candles:2m"), "binance has no candles of '2m'; known: 1m, 5m, 15m, 1h, 6h, 1d"),
        (replace(MINUTES, what="candles:1h"), "cryptocompare has no candles of '1h'; known: 1m"),
        (replace(GOOD, end=GOOD.start), "is not after the start"),
        (replace(GOOD, start=NOW + HOUR, end=NOW + 2 * HOUR), "the start 2026-11-20T08:12:30"),
        (replace(GOOD, end=NOW + timedelta(seconds=1)), "is in the future: it is 2026-11-20T07:12:30"),
        (replace(GOOD, what="candles:6h"), "no whole candle of 6h lies between"),
        (replace(MINUTES, start=NOW - timedelta(days=7, seconds=1)), "keeps candles of 1m for 7 days: nothing before "),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(tmp_path: Path, wish: Wish, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        wish.check(settings(tmp_path), NOW)
    assert why in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "wish",
    [
        GOOD,
        MINUTES,
        replace(GOOD, end=NOW),
        replace(GOOD, start=NOW - timedelta(days=4_000)),
        replace(GOOD, what="candles:1h", start=NOON - HOUR, end=NOON),
    ],
)
def test_what_can_be_is_taken(tmp_path: Path, wish: Wish) -> None:
    wish.check(settings(tmp_path), NOW)


def test_a_replay_takes_nothing_and_live_cryptocompare_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MARKETFLOW_DATASET"):
        GOOD.check(settings(tmp_path, dataset="replay"), NOW)
    with pytest.raises(ConfigurationError, match="MARKETFLOW_CRYPTOCOMPARE_API_KEY"):
        MINUTES.check(settings(tmp_path, dataset="live"), NOW)
    MINUTES.check(settings(tmp_path, dataset="live", cryptocompare_api_key=SecretStr("k")), NOW)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-11-20T05:00Z", []),
        ("2026-11-20T06:00+01:00", []),
        ("2026-11-20T05:00", ["start 2026-11-20T05:00 has no zone: taken as 2026-11-20T05:00:00+00:00"]),
    ],
)
def test_a_time_without_a_zone_is_utc_and_that_is_said(text: str, told: list[str]) -> None:
    said: list[str] = []
    assert moment("start", text, said.append) == datetime(2026, 11, 20, 5, tzinfo=UTC)
    assert said == told


def test_what_is_missing_on_the_command_line_is_named() -> None:
    with pytest.raises(ConfigurationError, match="needs --product, --end too"):
        Given("binance", None, "2026-11-20", None).wish(print)
    with pytest.raises(ConfigurationError, match="start 'yesterday' is no time"):
        Given("binance", "BTC-USDT", "yesterday", "2026-11-20").wish(print)
    found = Given("binance", "BTC-USDT", "2026-11-19T00:00Z", "2026-11-20T00:00Z", "1m").wish(print)
    assert (found.what, found.interval) == ("candles:1m", "1m")
    assert str(found) == "binance BTC-USDT candles:1m 2026-11-19 00:00:00 to 2026-11-20 00:00:00 UTC"


def test_the_span_of_a_wish_is_exact_to_the_microsecond() -> None:
    span = replace(GOOD, start=GOOD.start + timedelta(microseconds=1)).span(NOW)
    assert span.start_us == int(GOOD.start.timestamp()) * 1_000_000 + 1
    assert (span.end_us, span.now_us) == (int(GOOD.end.timestamp()) * 1_000_000, int(NOW.timestamp()) * 1_000_000)


def test_reports_and_lists_are_for_people_and_programs() -> None:
    report = Report(*GOOD.key.values, "done", 1_200, 1_199_001, GOOD.start, "the history begins with trade 7")
    assert str(report) == "done: 1,200 pages, 1,199,001 trades on them; the history begins with trade 7"
    assert report.as_dict()["start"] == "2026-11-20T04:12:30+00:00"
    assert render([]) == "nothing was backfilled; `marketflow backfill --help`"
    assert [_duration(seconds) for seconds in (7, 119, 121, 7_300)] == ["7 s", "119 s", "2 min", "2.0 h"]
