"""What producers could not know is found in silver, filled from the venue's history, and told in the ledger."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gold_lake import append, fresh, trade
from pyspark.sql import SparkSession

from marketflow.cli import app
from marketflow.contracts.silver import TRADES
from marketflow.errors import BusyError, ConfigurationError
from marketflow.settings import Settings
from marketflow.stack.heal import HealReport, Wish, heal_holes
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock
from tests.integration.heal_stage import VENUE, answers, assert_as_in_truth, traded, trades_of
from tests.integration.producer_stage import Market, environment, market

PRODUCT = "BAND-USD"
Row = tuple[int, int, str, str]


@pytest.fixture(scope="module")
def made(embedded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market with some history."""
    with market(embedded, tmp_path_factory.mktemp("market") / "market", PRODUCT, "--rate", "400") as running:
        traded(running, 3_000)
        yield running


@pytest.fixture
def settings(embedded: Settings, lake: SparkSession, made: Market) -> Settings:
    """Empty silver and ledger; the simulator's address."""
    fresh(lake, embedded)
    with connect(embedded) as connection:
        connection.execute("delete from ops.trade_gap")
    made.control("resume")
    return embedded.model_copy(update={**made.ports, "products": (PRODUCT,)})


class Silver:
    """silver.trades as it would be without some of the market's first thousands."""

    def __init__(self, lake: SparkSession, settings: Settings, made: Market) -> None:
        self.lake, self.settings, self.start = lake, settings, min(made.truth())
        self.received = datetime.now(UTC) - timedelta(minutes=10)

    def add(self, *places: int) -> None:
        """Trades by their distance from the market's first."""
        moment = self.received - timedelta(hours=1)
        more = {"product_id": PRODUCT, "received_at": self.received}
        rows = [trade(self.start + each, moment + each * timedelta(milliseconds=50), **more) for each in places]
        append(self.lake, self.settings, TRADES, rows)


@pytest.fixture
def silver(lake: SparkSession, settings: Settings, made: Market) -> Silver:
    return Silver(lake, settings, made)


def rows(settings: Settings, start: int) -> list[Row]:
    """The ledger's rows, ids as distances from the market's first."""
    with connect(settings) as connection:
        found = connection.execute(
            "select first_missing_id - %s, last_missing_id - %s, status, detected_by from ops.trade_gap "
            "where product_id = %s order by 1",
            (start, start, PRODUCT),
        ).fetchall()
    return [(first, last, status, by) for first, last, status, by in found]


def opened(settings: Settings, first: int, last: int, minutes_ago: float, **more: Any) -> None:
    with connect(settings) as connection:
        at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        known = {"venue": VENUE, "product_id": PRODUCT, "first_missing_id": first, "last_missing_id": last}
        ledger.open_hole(connection, **known, cause="drop", detected_at=at, **more)


def test_a_hole_that_only_silver_knows_is_filled_and_found_once(
    settings: Settings, silver: Silver, made: Market
) -> None:
    silver.add(*range(100), *range(1_250, 1_300), *range(1_310, 1_320))
    said: list[str] = []
    before = len(answers(settings, PRODUCT))
    assert heal_holes(settings, dry_run=True, say=said.append) == HealReport(found=1_160)
    assert rows(settings, silver.start) == []
    assert any(f"{silver.start + 100} to {silver.start + 1_249} (1,150 trades)" in line for line in said)
    report = heal_holes(settings, say=said.append)
    assert report == HealReport(found=1_160, tried=1_160, healed=1_160)
    assert report.healthy
    assert rows(settings, silver.start) == [(100, 1_249, "healed", "silver"), (1_300, 1_309, "healed", "silver")]
    found = answers(settings, PRODUCT)[before:]
    assert {record.headers["origin"] for record in found} == {"heal"}
    healed = sorted(item["trade_id"] - silver.start for item in trades_of(found))
    assert healed == [*range(100, 1_250), *range(1_300, 1_310)]
    assert_as_in_truth(trades_of(found), made)
    # on their way to silver they are neither new nor tried again
    assert heal_holes(settings, say=said.append) == HealReport()
    silver.add(*range(100, 1_250), *range(1_300, 1_310))
    assert heal_holes(settings, say=said.append) == HealReport()
    assert len(answers(settings, PRODUCT)) == before + len(found)


def test_rows_whose_ids_are_in_silver_are_closed_given_up_ones_too(settings: Settings, silver: Silver) -> None:
    silver.add(*range(200))
    start = silver.start
    opened(settings, start + 10, start + 19, minutes_ago=10)
    opened(settings, start + 30, start + 39, minutes_ago=10)
    with connect(settings) as connection:
        given = {"venue": VENUE, "product_id": PRODUCT, "first_id": start + 30, "last_id": start + 39}
        ledger.give_up(connection, **given, at=datetime.now(UTC), detail="x")
    assert heal_holes(settings, say=lambda line: None) == HealReport(closed=20)
    assert [row[2] for row in rows(settings, start)] == ["healed", "healed"]


def test_a_hole_that_a_producer_may_work_on_is_left_to_it_unless_asked_for(settings: Settings, silver: Silver) -> None:
    silver.add(*range(100), *range(110, 200))
    start = silver.start
    opened(settings, start + 100, start + 109, minutes_ago=1)
    assert heal_holes(settings, say=lambda line: None) == HealReport()
    wish = Wish(VENUE, PRODUCT, start + 102, start + 104)
    assert heal_holes(settings, wish, say=lambda line: None) == HealReport(tried=3, healed=3)
    assert [row[:3] for row in rows(settings, start)] == [
        (100, 101, "open"),
        (102, 104, "healed"),
        (105, 109, "open"),
    ]


def test_what_history_refuses_is_given_up_and_may_be_asked_for_again(
    settings: Settings, silver: Silver, made: Market
) -> None:
    silver.add(*range(100), *range(110, 200))
    made.control("faults", {"fault": "http_5xx", "count": 6})
    report = heal_holes(settings, tries=2, first_wait_s=0.1, say=lambda line: None)
    assert (report.found, report.given_up, report.left_open, report.healthy) == (10, 10, 0, False)
    assert rows(settings, silver.start) == [(100, 109, "unrecoverable", "silver")]
    assert heal_holes(settings, say=lambda line: None) == HealReport(), "it is not tried again by itself"
    with connect(settings) as connection:
        connection.execute(
            "update ops.trade_gap set detected_at = now() - interval '1 hour', "
            "last_attempt_at = now() - interval '1 hour'"
        )
    redo = Wish(redo_unrecoverable=True)
    assert heal_holes(settings, redo, say=lambda line: None) == HealReport(tried=10, healed=10)
    assert rows(settings, silver.start) == [(100, 109, "healed", "silver")]


def test_a_false_heal_is_told(settings: Settings, silver: Silver) -> None:
    silver.add(*range(100), *range(110, 200))
    opened(settings, silver.start + 100, silver.start + 109, minutes_ago=180)
    with connect(settings) as connection:
        known = {"venue": VENUE, "product_id": PRODUCT, "first_id": silver.start + 100, "last_id": silver.start + 109}
        ledger.close_hole(connection, **known, at=datetime.now(UTC) - timedelta(hours=2))
    said: list[str] = []
    report = heal_holes(settings, say=said.append)
    assert (report.false_heals, report.found, report.healthy) == (10, 0, False)
    assert "the ledger calls 10 trades healed that silver lacks" in said[-1]


def test_a_hole_that_silver_has_only_just_shown_is_not_judged_yet(settings: Settings, silver: Silver) -> None:
    silver.received = datetime.now(UTC)
    silver.add(*range(100), *range(110, 200))
    assert heal_holes(settings, say=lambda line: None) == HealReport()


def test_one_run_at_a_time_and_wishes_that_mean_nothing_are_refused(settings: Settings) -> None:
    with table_lock(settings, "ops.trade_gap"), pytest.raises(BusyError):
        heal_holes(settings)
    for wish in (Wish("nowhere"), Wish(first_id=1, last_id=2), Wish(VENUE, PRODUCT, 5), Wish(VENUE, PRODUCT, 5, 4)):
        with pytest.raises(ConfigurationError):
            heal_holes(settings, wish)
    with pytest.raises(ConfigurationError, match="replay"):
        heal_holes(settings.model_copy(update={"dataset": "replay"}))


def test_a_product_that_a_venue_does_not_have_and_ids_that_are_not_yet_are_refused_before_anything_is_written(
    settings: Settings, silver: Silver
) -> None:
    newest = 10**15
    for wish, words in (
        (Wish(VENUE, "NOPE", 1, 2), f"product 'NOPE' is none of {VENUE}; known: "),
        (Wish("binance", "BTC-USD", 1, 2), "product 'BTC-USD' is none of binance; known: "),
        (Wish(product_id="NOPE"), "product 'NOPE' is unknown; known: "),
        (Wish(VENUE, PRODUCT, newest, newest), f"last {newest}: the newest trade of {PRODUCT} at {VENUE} is "),
    ):
        with pytest.raises(ConfigurationError, match=words):
            heal_holes(settings, wish)
    with connect(settings) as connection:
        assert connection.execute("select 1 from ops.trade_gap where product_id = 'NOPE'").fetchone() is None
    assert rows(settings, silver.start) == []


def test_a_row_of_no_product_stops_no_other(settings: Settings, silver: Silver) -> None:
    silver.add(*range(100), *range(110, 200))
    with connect(settings) as connection:
        connection.execute(
            "insert into ops.trade_gap (venue, product_id, first_missing_id, last_missing_id, detected_at, "
            "detected_by, cause, status, attempts) "
            "values (%s, 'NOPE', 1, 5, now() - interval '1 hour', 'silver', 'unknown', 'open', 0)",
            (VENUE,),
        )
    said: list[str] = []
    assert heal_holes(settings, say=said.append) == HealReport(found=10, tried=10, healed=10)
    assert f"{VENUE} NOPE 1 to 5 (5 trades): no such product there" in said
    with connect(settings) as connection:
        connection.execute("delete from ops.trade_gap where product_id = 'NOPE'")


@pytest.fixture
def as_a_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the environment, as a command or a task finds them."""
    names = ("simulator_ws_port", "simulator_rest_port", "s3_port")
    told = environment(settings, **{name: getattr(settings, name) for name in names}, products=PRODUCT)
    for name in list(os.environ):
        if name.startswith("MARKETFLOW_") and name not in told:
            monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("as_a_process")
def test_the_command_says_what_it_does_and_ends_with_1_where_trades_stay_missing(
    settings: Settings, silver: Silver, made: Market
) -> None:
    from typer.testing import CliRunner

    silver.add(*range(100), *range(110, 200))
    made.control("faults", {"fault": "http_429", "count": 1, "retry_after": 600})
    done = CliRunner().invoke(app, ["heal", "--venue", VENUE, "--product", PRODUCT])
    assert done.exit_code == 1, done.output
    assert done.output.splitlines()[-1] == (
        "found 10, closed 0, tried 10, healed 0, given up 0, false heals 0, left open 10"
    )
    last = str(silver.start + 109)
    done = CliRunner().invoke(
        app, ["heal", "--venue", VENUE, "--product", PRODUCT, "--first", str(silver.start + 100), "--last", last]
    )
    assert done.exit_code == 0, done.output
    assert rows(settings, silver.start) == [(100, 109, "healed", "silver")]


@pytest.mark.usefixtures("as_a_process")
def test_the_dag_heals_by_schedule_and_by_wish(
    settings: Settings, silver: Silver, monkeypatch: pytest.MonkeyPatch
) -> None:
    silver.add(*range(100), *range(110, 200), *range(205, 210))
    airflow_home.fresh_database()
    monkeypatch.setattr("sys.argv", ["airflow", "dags", "test"])
    from airflow.dag_processing.dagbag import DagBag

    def run(**how: Any) -> str:
        # read anew, as every run of the command is: a Dag keeps the params of its last test
        heal_gaps = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["heal_gaps"]
        for task in heal_gaps.tasks:
            task.retries = 0
        return str(heal_gaps.test(**how).state)

    wish = {"venue": VENUE, "product": PRODUCT, "first": silver.start + 100, "last": silver.start + 109}
    assert run(run_conf=wish) == "success"
    assert rows(settings, silver.start) == [(100, 109, "healed", "silver")]
    assert run(run_conf={"produkt": "BTC-USD"}) == "failed"
    assert run() == "success"
    assert rows(settings, silver.start)[1:] == [(200, 204, "healed", "silver")]
