"""A run of train_forecast trains on the day before its hour's end, or on what its form says, and on nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow.forecast.lake import Wish
from marketflow_airflow.forecast import wish_of

NOW = datetime(2026, 11, 20, 7, 12, 30, tzinfo=UTC)
FIVE = datetime(2026, 11, 20, 5, tzinfo=UTC)
DAY = timedelta(days=1)
FORM = {"product": "BTC-USD", "venue": "coinbase_exchange", "horizon": 10, "start": None, "end": None}


def wish(*, logical_date=None, conf=None, **asked):
    run = SimpleNamespace(partition_key=None, logical_date=logical_date, run_after=NOW, conf=conf)
    return wish_of({"dag_run": run, "params": FORM | asked}, list(FORM), now=NOW)


def test_a_run_with_a_date_takes_the_day_before_its_hours_end_and_one_without_the_last_complete_hours():
    six, seven = FIVE + timedelta(hours=1), FIVE + timedelta(hours=2)
    assert wish(logical_date=FIVE) == Wish("BTC-USD", "coinbase_exchange", 10, six - DAY, six)
    assert wish() == wish(logical_date=NOW) == Wish("BTC-USD", "coinbase_exchange", 10, seven - DAY, seven)


def test_the_form_is_taken_as_it_is():
    asked = {"start": "2026-11-19T22:30:00+01:00", "product": "BTC-USDT", "venue": "", "horizon": 50}
    assert wish(logical_date=FIVE, **asked) == Wish("BTC-USDT", None, 50, "2026-11-19T22:30:00+01:00", None)


def test_a_misspelt_key_fails_at_once():
    with pytest.raises(AirflowFailException, match="no produkt"):
        wish(conf={"produkt": "BTC-USD"})
