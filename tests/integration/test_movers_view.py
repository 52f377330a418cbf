"""What a person is told of the movers before the first ranking, while there is one, and after a stop."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from marketflow.catalog import movers
from marketflow.catalog.queries import run_on_postgres
from marketflow.lake import live
from marketflow.settings import Settings
from marketflow.stack import postgres
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=30)
ASSETS = [f"asset-{index:02}" for index in range(12)]


@pytest.fixture
def own(embedded: Settings) -> Settings:
    """A database that no other test writes to, with empty live tables."""
    settings = embedded.model_copy(update={"dataset": "live"})
    postgres.bootstrap(settings)
    schema.apply(settings)
    with connect(settings) as connection:
        connection.execute("truncate live.asset_observation, live.price_metrics, live.top_movers, live.batch")
    return settings


def poll(settings: Settings, number: int, at: datetime) -> None:
    """One page of twelve assets, as bronze has it, through the live query's own writer."""
    micros = str((at - EPOCH) // timedelta(microseconds=1))
    headers = {
        "venue": "coingecko",
        "http_status": "200",
        "vs_currency": "usd",
        "origin": "simulated",
        "poll_id": f"poll-{number:03}",
        "poll_started_at": micros,
        "received_at": micros,
    }
    coins = [
        {
            "id": asset,
            "symbol": asset,
            "name": asset,
            "current_price": 100 + rank * number,
            "last_updated": (at - timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        for rank, asset in enumerate(ASSETS)
    ]
    pages = [{"headers": json.dumps(headers), "value": json.dumps(coins).encode()}]
    live.write(settings, "live_prices/test", number, live.observations(pages))


def polls(settings: Settings, first: int, start: datetime, count: int) -> None:
    for index in range(count):
        poll(settings, first + index, start + index * STEP)


def test_before_any_price_and_during_the_first_minutes_there_is_no_ranking_and_a_time_is_said(own: Settings) -> None:
    nothing = movers.latest(own)
    assert (nothing.snapshot_at, nothing.possible_from, nothing.stale_since) == (None, None, None)
    assert movers.render(nothing).startswith("No price arrived lately.")
    began = datetime.now(UTC) - timedelta(minutes=2)
    polls(own, 1, began, 4)
    warming = movers.latest(own)
    assert warming.possible_from == began + timedelta(minutes=5)
    assert movers.render(warming).startswith(f"Warming up: five-minute movers exist from {warming.possible_from:%H:%M}")
    assert warming.as_dict()["movers"] == []


def test_a_ranking_of_these_five_minutes_is_shown_as_it_is(own: Settings) -> None:
    polls(own, 1, datetime.now(UTC) - timedelta(minutes=7), 14)
    now = movers.latest(own)
    assert (len(now.result.rows), now.stale_since) == (10, None)
    assert movers.render(now).splitlines()[0].split()[:2] == ["direction", "rank"]


def test_after_a_stop_the_old_ranking_is_called_stale_and_the_next_one_has_a_time(own: Settings) -> None:
    stopped, started = datetime.now(UTC) - timedelta(minutes=75), datetime.now(UTC) - timedelta(minutes=1)
    polls(own, 1, stopped - 13 * STEP, 14)
    polls(own, 15, started, 2)
    found = movers.latest(own)
    assert found.snapshot_at == stopped
    assert found.stale_since == stopped + timedelta(minutes=5)
    assert found.possible_from == started + timedelta(minutes=5)
    stale, outlook, head = movers.render(found).splitlines()[:3]
    assert stale == f"STALE: this ranking is of {stopped:%Y-%m-%d %H:%M:%S} UTC, 75 min ago."
    assert outlook.startswith("Warming up")
    assert head.startswith("direction")
    for view in ("mart.top_5_gainers", "mart.top_5_losers"):
        rows = run_on_postgres(own, f"select distinct snapshot_ts, stale_since from {view}").rows
        assert rows == [(stopped, stopped + timedelta(minutes=5))]
    polls(own, 17, started + timedelta(minutes=1), 9)
    again = movers.latest(own)
    assert again.stale_since is None
    assert run_on_postgres(own, "select distinct stale_since from mart.top_5_gainers").rows == [(None,)]


def test_a_pause_within_the_tolerance_that_was_set_is_no_stop(own: Settings) -> None:
    began = datetime.now(UTC) - timedelta(minutes=12)
    for number in range(2):
        poll(own, number + 1, began + number * timedelta(minutes=8))
    assert movers.latest(own).possible_from == began + timedelta(minutes=13)
    patient = own.model_copy(update={"change_tolerance_s": 300})
    assert movers.latest(patient).possible_from == began + timedelta(minutes=5)
