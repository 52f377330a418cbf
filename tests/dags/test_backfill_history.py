"""What a run of backfill_history brings is what its form says, or the hour that it is of; nothing else is taken."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow.ingest.backfill_wish import Wish
from marketflow_airflow import backfill as run_of_history
from marketflow_airflow.backfill import bring, wish_of

NOW = datetime(2026, 11, 20, 7, 12, 30, tzinfo=UTC)
FIVE = datetime(2026, 11, 20, 5, tzinfo=UTC)
FORM = {"venue": "binance", "product": "BTC-USDT", "what": "trades", "start": None, "end": None, "again": False}


def context(*, logical_date=None, conf=None, **asked):
    run = SimpleNamespace(partition_key=None, logical_date=logical_date, run_after=NOW, conf=conf, start_date=NOW)
    return {"dag_run": run, "params": FORM | asked}


def wish(given):
    said = []
    return wish_of(given, list(FORM), said.append, now=NOW), said


def test_start_and_end_of_the_form_are_taken_whatever_hour_the_run_is_of():
    asked = {"start": "2026-11-19T22:30:00+01:00", "end": "2026-11-20T05:00:00", "what": "candles:1m"}
    found, said = wish(context(logical_date=NOW, **asked))
    start = datetime(2026, 11, 19, 21, 30, tzinfo=UTC)
    assert found == Wish("binance", "BTC-USDT", "candles:1m", start, FIVE)
    assert said == ["end 2026-11-20T05:00:00 has no zone: taken as 2026-11-20T05:00:00+00:00"]


def test_without_them_it_is_the_hour_of_the_logical_date_and_the_log_says_so():
    found, said = wish(context(logical_date=FIVE + timedelta(minutes=20)))
    assert (found.start, found.end) == (FIVE, FIVE + timedelta(hours=1))
    assert said == ["no start and end: the hour 2026-11-20T05:00:00, by logical_date"]


def test_by_hand_with_nothing_it_is_the_last_complete_hour():
    found, _ = wish(context(logical_date=NOW))
    assert (found.start, found.end) == (FIVE + timedelta(hours=1), FIVE + timedelta(hours=2))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"start": "2026-11-20T05:00:00Z"}, "together"),
        ({"end": "2026-11-20T05:00:00Z"}, "together"),
        ({"start": "five", "end": "six"}, "is no time"),
        ({"conf": {"produkt": "BTC-USD"}}, "no produkt"),
    ],
)
def test_half_an_interval_no_time_and_a_misspelt_key_fail_at_once(asked, why):
    with pytest.raises(AirflowFailException, match=why):
        wish(context(**asked))


@pytest.mark.parametrize(
    ("program", "begun"), [("airflow scheduler", NOW), ("airflow dags test backfill_history", None)]
)
def test_a_run_that_starts_over_does_so_once_from_when_it_began(monkeypatch, program, begun):
    asked = []
    monkeypatch.setattr(sys, "argv", program.split())
    monkeypatch.setattr(
        run_of_history, "backfill", lambda settings, wish, *, again, begun, say: asked.append((again, begun))
    )
    given = {"start": "2026-01-01T00:00Z", "end": "2026-01-01T01:00Z", "again": True}
    bring(context(**given), list(FORM), print)
    assert asked == [(True, begun)]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"venue": "coingecko"}, "has no history of trades; known: coinbase_exchange, coinbase_advanced, binance"),
        ({"product": "BTC-USD"}, "is none of binance; known: BTC-USDT"),
        ({"what": "candles:7m"}, "known: 1m, 5m, 15m, 1h, 6h, 1d"),
        ({"what": "everything"}, "trades, or candles:1m"),
        ({"start": "2026-01-02T00:00Z", "end": "2026-01-01T00:00Z"}, "is not after the start"),
        ({"start": "2026-01-02T00:00Z", "end": "2126-01-01T00:00Z"}, "is in the future"),
    ],
)
def test_a_wish_that_cannot_be_met_is_not_tried_again(asked, why):
    given = {"start": "2026-01-01T00:00Z", "end": "2026-01-01T01:00Z"} | asked
    with pytest.raises(AirflowFailException, match=why):
        bring(context(**given), list(FORM), print)
