"""The poller against the simulator: every answer is in Kafka, whole polls, and no call is forgotten."""

from __future__ import annotations

import json
from pathlib import Path

from marketflow.settings import Settings
from marketflow.warehouse.connection import connect
from tests.integration.producer_stage import Stored, market, producer, stored, until

VENUE = "coingecko"


def answers(settings: Settings) -> list[Stored]:
    return stored(settings, "sim.crypto.prices.raw", VENUE)


def statuses(settings: Settings, since: int) -> list[str]:
    return [each.headers["http_status"] for each in answers(settings)[since:]]


def test_polls_are_whole_refusals_are_kept_and_every_call_is_counted(embedded: Settings, tmp_path: Path) -> None:
    before = len(answers(embedded))
    with (
        market(embedded, tmp_path / "market", "SOL-USD", "--rate", "5") as made,
        producer(
            embedded,
            made,
            VENUE,
            "producer",
            coingecko_assets=60,
            coingecko_poll_interval_s=0.5,
            coingecko_plan="demo",
            coingecko_api_key="a-very-secret-key",
        ) as poller,
    ):
        until(lambda: len(answers(embedded)) >= before + 4, "four polls")
        made.control("faults", {"fault": "http_429", "venue": VENUE, "retry_after": 2})
        until(lambda: "429" in statuses(embedded, before), "a refusal")
        made.control("faults", {"fault": "http_5xx", "venue": VENUE})
        until(lambda: "500" in statuses(embedded, before), "an error")
        until(lambda: statuses(embedded, before)[-1] == "200", "a page after them")
        assert poller.stop() == 0, poller.output
        output = poller.output
    found = answers(embedded)[before:]
    assert "a-very-secret-key" not in output
    for each in found:
        assert "a-very-secret-key" not in json.dumps(each.headers)
        assert each.headers["request"] == (
            "/coins/markets?order=market_cap_desc&page=1&per_page=60&precision=18&vs_currency=usd"
        )
        assert (each.headers["vs_currency"], each.headers["page"], each.headers["origin"]) == ("usd", "1", "simulated")
        assert int(each.headers["poll_started_at"]) <= int(each.headers["received_at"])
    pages = [json.loads(each.value) for each in found if each.headers["http_status"] == "200"]
    assert all(len(page) == 60 for page in pages)
    assert len({each.headers["poll_id"] for each in found}) == len(found)
    refused = next(at for at, each in enumerate(found) if each.headers["http_status"] == "429")
    waited_us = int(found[refused + 1].headers["poll_started_at"]) - int(found[refused].headers["received_at"])
    assert waited_us >= 2_000_000
    with connect(embedded) as connection:
        ((calls, allowed),) = connection.execute(
            "select calls, calls_allowed from ops.quota_usage where source = %s and plan = 'demo'", (VENUE,)
        ).fetchall()
    assert calls >= len(found)
    assert allowed is None


def test_a_poll_has_as_many_pages_as_its_assets_need(embedded: Settings, tmp_path: Path) -> None:
    before = len(answers(embedded))
    with (
        market(embedded, tmp_path / "market", "SOL-USD", "--rate", "5") as made,
        producer(
            embedded,
            made,
            VENUE,
            "producer",
            coingecko_assets=300,
            vs_currencies="usd",
            coingecko_poll_interval_s=1,
            coingecko_plan="demo",
            coingecko_api_key="k",
        ) as poller,
    ):
        until(lambda: len(answers(embedded)) >= before + 4, "two polls of two pages")
        assert poller.stop() == 0, poller.output
    first, second = answers(embedded)[before : before + 2]
    assert first.headers["poll_id"] == second.headers["poll_id"]
    assert [each.headers["page"] for each in (first, second)] == ["1", "2"]
    assert "per_page=150" in second.headers["request"]


def test_a_live_plan_that_must_be_exceeded_is_refused_at_start(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "SOL-USD") as made,
        producer(
            embedded,
            made,
            VENUE,
            "producer",
            dataset="live",
            coingecko_poll_interval_s=30,
            coingecko_plan="demo",
            coingecko_api_key="k",
        ) as poller,
    ):
        assert poller.child.wait(60) == 2
        (line,) = poller.output.splitlines()
        assert "MARKETFLOW_COINGECKO_POLL_INTERVAL_S" in line
        assert "86,400 calls in 30 days, plan demo allows 10,000" in line
