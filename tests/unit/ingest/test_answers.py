"""What an answer to a poll means, and how long it asks to be left alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import aiohttp
import pytest

from marketflow.ingest.answers import failure, retry_after_s, shown, verdict

NOW = datetime(2026, 7, 7, 12, 0, 0, tzinfo=UTC)
HEADERS = {
    "venue": "coingecko",
    "channel": "markets",
    "received_at": "1783465200000000",
    "vs_currency": "usd",
    "http_status": "200",
}
COIN = {
    "id": "pepe",
    "symbol": "pepe",
    "name": "Pepe",
    "current_price": 1.5,
    "last_updated": "2026-07-07T22:58:16.156Z",
}


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (429, "119", 119.0),  # what CoinGecko sends
        (429, None, 60.0),
        (503, "5", 5.0),
        (503, None, None),
        (200, "5", None),
        (403, "5", None),
        (418, "7200", 7200.0),  # a ban that outlasts the longest wait of a 429
        (418, None, 120.0),
        (418, "999999999", 259200.0),
        (429, "Tue, 07 Jul 2026 12:01:30 GMT", 90.0),
        (429, "Tue, 07 Jul 2026 11:00:00 GMT", 0.0),
        (429, "soon", 60.0),
        (429, "999999999", 3600.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(status: int, header: str | None, expected: float | None) -> None:
    assert retry_after_s(status, header, NOW) == expected


@pytest.mark.parametrize(
    ("venue", "value", "label"),
    [
        ("coingecko", [COIN], "200"),
        ("coingecko", [COIN, {**COIN, "current_price": None}], "200"),  # one price is enough
        ("coingecko", [{**COIN, "current_price": None}], "200_null_price"),
        ("coingecko", [], "200_empty_page"),
        ("coingecko", {}, "200_unexpected_shape"),
        ("coingecko", {"status": {"error_code": 429}}, "200_unexpected_shape"),
        ("coincap", {}, "200_unexpected_shape"),
        ("coincap", [], "200_unexpected_shape"),
        ("coincap", {"data": [], "timestamp": 1783465199000}, "200_empty_page"),
        ("coincap", {"error": "unknown"}, "200_venue_error"),
        ("cryptocompare", {"Response": "Error", "Message": "no", "Type": 2}, "200_venue_error"),
        ("cryptocompare", {"RAW": {}}, "200_empty_page"),
        ("binance", [], "200_empty_page"),
        ("binance", {"code": -1121, "msg": "Invalid symbol."}, "200_unexpected_shape"),
    ],
)
def test_an_answer_with_status_200_is_counted_by_what_silver_will_make_of_it(
    venue: str, value: object, label: str
) -> None:
    channel = "ticker_24hr" if venue == "binance" else "any"
    found = verdict(HEADERS | {"venue": venue, "channel": channel}, json.dumps(value).encode())
    assert found.label == label
    assert (found.means is None) == (label == "200")


def test_half_a_page_that_was_sent_as_whole_is_named() -> None:
    assert verdict(HEADERS, json.dumps([COIN]).encode()[:-9]).label == "200_malformed"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "firewall"),
        (418, "banned"),
        (451, "country"),
        (429, "too many calls"),
        (401, "key"),
        (500, "in trouble"),
        (302, "moved"),
        (204, "no answer that a poll expects"),
    ],
)
def test_another_status_says_what_it_means(status: int, words: str) -> None:
    found = verdict(HEADERS | {"http_status": str(status)}, b"")
    assert found.label == str(status)
    assert words in str(found.means)


def test_what_never_came_is_slow_half_or_none() -> None:
    assert failure(TimeoutError()).label == "slow"
    assert failure(aiohttp.ClientPayloadError("not all of it")).label == "half"
    assert failure(aiohttp.ServerDisconnectedError()).label == "none"
    assert failure(ConnectionResetError()).label == "none"


def test_an_answer_that_repeats_the_key_is_shown_without_it() -> None:
    value = b'{"error":"key a-secret of Bearer a-secret is unknown"}' + b"x" * 300
    text = shown(value, {"authorization": "Bearer a-secret"})
    assert "a-secret" not in text
    assert text.startswith('{"error":"key *** of ***')
    assert len(text) == 200
    assert shown(b"\xff\n", {"authorization": ""}) == "\\ufffd\\n"
