"""The library's own class against the simulator: every trade between the first poll and the last, and losses said."""

from __future__ import annotations

import json
import urllib.request
from decimal import Decimal
from pathlib import Path
from typing import Any

from marketflow import venues
from marketflow.contracts.records import Parsed, Trade
from marketflow.settings import Settings
from marketflow.stack.servers import free_ports
from tests.integration.producer_stage import Market, Process, Stored, market, producer, stored, until

# each test has a product of its own: a producer goes on from the last trade of its products in Kafka
PRODUCT, SEEN_IN_PART, VENUE = "SOL-USD", "LTC-USD", "ccxt_coinbaseexchange"
# two ticks of the simulator: what it made last may not be on its pages yet
SLACK_US = 500_000


def answers(settings: Settings, product: str = PRODUCT) -> list[Stored]:
    return stored(settings, "sim.crypto.trades.raw", f"{VENUE}|{product}")


def listening(**changes: object) -> dict[str, Any]:
    (port,) = free_ports(1)
    return {
        "ccxt_exchanges": "coinbaseexchange",
        "ccxt_products": PRODUCT,
        "ccxt_poll_interval_s": 1,
        "producer_ccxt_metrics_port": port,
        **changes,
    }


def trades(records: list[Stored]) -> dict[int, Trade]:
    """All trades of the answers, as silver would read them; one that comes again is the same."""
    found: dict[int, Trade] = {}
    for record in records:
        outcome = venues.parse(record.headers, record.value)
        assert isinstance(outcome, Parsed), outcome
        for item in outcome.items:
            assert isinstance(item, Trade), item
            assert found.setdefault(item.trade_id, item) == item
    return found


def shortest(text: str) -> Decimal:
    """A number as it is after it was a float."""
    return Decimal(repr(float(text)))


def made_between(made: Market, first_us: int, last_us: int) -> dict[int, dict[str, Any]]:
    return {each: fact for each, fact in made.truth().items() if first_us <= fact["event_us"] <= last_us}


def test_every_trade_from_the_first_poll_to_the_last_is_in_kafka_as_the_market_made_it(
    embedded: Settings, tmp_path: Path
) -> None:
    with (
        market(embedded, tmp_path / "market", PRODUCT, "--rate", "20") as made,
        producer(embedded, made, "ccxt", "producer", **listening()) as poller,
    ):
        until(lambda: len(answers(embedded)) >= 3, "three polls")
        made.control("faults", {"fault": "http_5xx", "venue": "coinbase_exchange"})
        until(lambda: poller.events("no_answer"), "a poll that failed")
        again = len(answers(embedded))
        until(lambda: len(answers(embedded)) >= again + 3, "three polls more")
        assert poller.stop() == 0, poller.output
        stopped = len(answers(embedded))
        with producer(embedded, made, "ccxt", "next", **listening()) as following:
            until(lambda: len(answers(embedded)) >= stopped + 2, "two polls after a stop")
            assert following.stop() == 0, following.output
        assert following.events("trades_lost") == []
        found = answers(embedded)
        assert "since" in found[stopped].headers["request"], "it goes on from the last trade in Kafka"
        first, last = found[0].headers, found[-1].headers
        expected = made_between(made, int(first["received_at"]), int(last["poll_started_at"]) - SLACK_US)
    assert len(expected) > 60
    parsed = trades(found)
    assert expected.keys() <= parsed.keys()
    truth = made.truth()
    for trade_id, trade in parsed.items():
        fact = truth[trade_id]
        assert (trade.venue, trade.product_id, trade.float_born) == (VENUE, PRODUCT, True)
        assert (trade.price, trade.size) == (shortest(fact["price"]), shortest(fact["size"]))
        assert trade.taker_side == fact["taker_side"]
        assert trade.event_us == fact["event_us"] // 1_000 * 1_000
    assert poller.events("trades_lost") == []
    assert {each.headers["origin"] for each in found} == {"simulated"}
    assert "since" not in first["request"]
    assert last["request"].startswith("fetch_trades?limit=1000&since=")
    assert int(first["poll_started_at"]) <= int(first["received_at"])
    members = {name for each in found for trade in json.loads(each.value) for name in trade}
    assert members == {
        *("id", "timestamp", "datetime", "symbol", "side", "takerOrMaker", "price", "amount", "cost", "info")
    }


def test_what_no_poll_brought_is_said_with_the_times_between_which_it_is_missing(
    embedded: Settings, tmp_path: Path
) -> None:
    settings = listening(ccxt_limit=5, ccxt_products=SEEN_IN_PART)
    with (
        market(embedded, tmp_path / "market", SEEN_IN_PART, "--rate", "50") as made,
        producer(embedded, made, "ccxt", "producer", **settings) as poller,
    ):
        until(lambda: len(poller.events("trades_lost")) >= 2, "a loss that is told")
        assert counted(settings["producer_ccxt_metrics_port"], "marketflow_loose_polls_total") >= 2
        assert poller.stop() == 0, poller.output
        lost = _lost(poller)
        kept = trades(answers(embedded, SEEN_IN_PART))
        for event in lost:
            missing = {
                trade_id
                for trade_id, fact in made.truth().items()
                if event["last_seen_ms"] < fact["event_us"] // 1_000 < event["oldest_of_poll_ms"]
            }
            assert missing
            assert not missing & kept.keys()
            assert event["page_full"]


def _lost(poller: Process) -> list[dict[str, Any]]:
    events = poller.events("trades_lost")
    assert {(event["venue"], event["product_id"]) for event in events} == {(VENUE, SEEN_IN_PART)}
    return events


def counted(port: int, name: str) -> float:
    """A counter of the producer, from its metrics port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))
