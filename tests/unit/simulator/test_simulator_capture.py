"""The offline capture: repeatable, equal to its truth, as a recorder would have written it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from marketflow.errors import ConfigurationError
from marketflow.simulator.__main__ import run

START = datetime(2026, 8, 1, 12, tzinfo=UTC)


def capture(folder: Path, *words: str) -> list[dict[str, Any]]:
    out, truth_folder = str(folder / "capture.ndjson"), str(folder / "truth")
    when = ("--start", "2026-08-01T12:00:00", "--hours", "0.1", "--seed", "3")
    listed = ("--products", "BTC-USD,ETH-USD")  # a later word of the same name counts
    run(["capture", "--out", out, "--truth", truth_folder, *when, *listed, *words])
    lines = (folder / "capture.ndjson").read_text().splitlines()
    return [json.loads(line, parse_float=str) for line in lines]


def truth(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, (folder / f"truth/{name}.ndjson").read_text().splitlines())


def us(text: str) -> int:
    return round((datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capture")


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[dict[str, Any]]:
    return capture(folder, "--rate", "4")


def test_the_same_arguments_give_the_same_bytes(folder: Path, lines: list[dict[str, Any]], tmp_path: Path) -> None:
    capture(tmp_path, "--rate", "4")
    for name in ("capture.ndjson", "truth/trades.ndjson", "truth/prices.ndjson"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert len(lines) > 3000


def test_the_matches_are_the_truth_trade_by_trade(folder: Path, lines: list[dict[str, Any]]) -> None:
    matches = {
        (line["raw"]["product_id"], line["raw"]["trade_id"]): line["raw"]
        for line in lines
        if line["raw"] and isinstance(line["raw"], dict) and line["raw"]["type"] == "match"
    }
    facts = list(truth(folder, "trades"))
    assert set(matches) == {(fact["product_id"], fact["trade_id"]) for fact in facts}
    for fact in facts:
        match = matches[fact["product_id"], fact["trade_id"]]
        assert (Decimal(match["price"]), Decimal(match["size"])) == (Decimal(fact["price"]), Decimal(fact["size"]))
        assert (us(match["time"]), match["sequence"]) == (fact["event_us"], fact["sequence"])
        assert match["side"] != fact["taker_side"]


def test_lines_come_in_the_order_of_their_arrival_and_after_what_they_tell(lines: list[dict[str, Any]]) -> None:
    arrivals = [line["received_at_us"] for line in lines]
    assert arrivals == sorted(arrivals)
    end_us = us("2026-08-01T12:06:00+00:00")
    for line in lines:
        moments = line["raw"] if isinstance(line["raw"], list) else [line["raw"]]
        times = [us(entry.get("time") or entry["last_updated"]) for entry in moments if "channels" not in entry]
        assert all(us("2026-08-01T12:00:00+00:00") <= moment < end_us for moment in times)
        assert all(moment < line["received_at_us"] for moment in times)


def test_envelopes_say_what_the_payload_does_not(lines: list[dict[str, Any]]) -> None:
    channels = defaultdict(set)
    for line in lines:
        channels[line["venue"]].add(line["channel"])
    assert channels == {
        "coinbase_exchange": {"subscriptions", "matches", "ticker", "heartbeat"},
        "coingecko": {"markets"},
    }
    polls = [line for line in lines if line["venue"] == "coingecko"]
    assert len(polls) == len({line["poll_id"] for line in polls}) == 12
    for number, poll in enumerate(polls):
        assert poll["poll_started_at_us"] == int(START.timestamp()) * 1_000_000 + number * 30_000_000
        assert (poll["page"], poll["vs_currency"], len(poll["raw"])) == (1, "usd", 100)
        assert poll["request"] == "/coins/markets?order=market_cap_desc&page=1&per_page=100&vs_currency=usd"


def test_every_polled_price_is_in_the_truth_to_the_digit(folder: Path, lines: list[dict[str, Any]]) -> None:
    facts = {(fact["asset_id"], fact["last_updated_us"]): fact["price"] for fact in truth(folder, "prices")}
    seen = {
        (coin["id"], us(coin["last_updated"])): str(coin["current_price"])
        for line in lines
        if line["venue"] == "coingecko"
        for coin in line["raw"]
    }
    assert len(seen) > 1000
    assert {key: facts[key] for key in seen} == seen


def test_pages_are_numbered_where_one_is_not_enough(tmp_path: Path) -> None:
    lines = capture(tmp_path, "--assets", "260", "--poll-interval-s", "60")
    polls = [(line["page"], len(line["raw"])) for line in lines if line["venue"] == "coingecko"]
    assert polls == [(1, 250), (2, 14)] * 6


def test_drops_and_duplicates_leave_the_truth_as_it_is(
    folder: Path, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    faulty = capture(tmp_path, "--rate", "4", "--faults", '{"drop": 0.05, "duplicate": 0.05}')
    for name in ("trades", "prices"):
        assert (tmp_path / f"truth/{name}.ndjson").read_bytes() == (folder / f"truth/{name}.ndjson").read_bytes()

    def told(entries: list[dict[str, Any]]) -> list[tuple[str, int]]:
        return [
            (line["raw"]["product_id"], line["raw"]["trade_id"]) for line in entries if line["channel"] == "matches"
        ]

    whole, partial = told(lines), told(faulty)
    assert 0.03 < len(set(whole) - set(partial)) / len(whole) < 0.07
    assert 0.03 < (len(partial) - len(set(partial))) / len(whole) < 0.07


def test_a_folder_that_holds_a_truth_is_refused(folder: Path, lines: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigurationError, match="already holds"):
        capture(folder)


def test_each_book_is_on_its_own_exchanges_feed(tmp_path: Path) -> None:
    told = capture(tmp_path, "--rate", "4", "--products", "BTC-USD,BTC-USDT", "--assets", "0")
    channels = {(line["venue"], line["channel"]) for line in told}
    assert channels == {
        ("coinbase_exchange", "subscriptions"),
        ("coinbase_exchange", "matches"),
        ("coinbase_exchange", "ticker"),
        ("coinbase_exchange", "heartbeat"),
        ("binance", "trade"),
        ("binance", "bookTicker"),
    }
    assert told[0]["raw"]["channels"][0]["product_ids"] == ["BTC-USD"]
    facts = {fact["trade_id"]: fact for fact in truth(tmp_path, "trades") if fact["product_id"] == "BTC-USDT"}
    trades = [line["raw"] for line in told if line["channel"] == "trade"]
    assert [trade["t"] for trade in trades] == list(facts)
    for trade in trades:
        fact = facts[trade["t"]]
        assert (trade["s"], trade["T"] * 1000) == ("BTCUSDT", fact["event_us"])
        assert (Decimal(trade["p"]), Decimal(trade["q"])) == (Decimal(fact["price"]), Decimal(fact["size"]))
        assert trade["m"] is (fact["taker_side"] == "sell")


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ('{"mars:drop": 0.1}', "venue is one of coinbase_exchange"),
        ('{"binance:currency_switch": 0.1}', "a fault of an aggregator's page, and binance is an exchange"),
        ('{"coingecko:vanish": 0.1}', "vanish is a fault of a feed, and coingecko has none"),
        ('{"earthquake": 0.1}', "wants a known fault"),
    ],
)
def test_a_chance_of_what_can_never_happen_is_refused_at_the_start(tmp_path: Path, faults: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        capture(tmp_path, "--faults", faults)
