"""A late layer says why, and what to run: the first cause in the flow, and not each layer after it anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from marketflow.quality.late import Facts, alerts, causes
from marketflow.stack.status import Layer, late_after

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
RUNNING = dict.fromkeys(
    ("kafka", "market-stream", "producer-coinbase", "producer-binance", "airflow-scheduler"), "running"
)


def layer(name: str, minutes: float, late: bool, newest_minutes: float | None = None) -> Layer:
    newest = None if newest_minutes is None else NOW - timedelta(minutes=newest_minutes)
    return Layer(name, NOW - timedelta(minutes=minutes), minutes * 60, late, newest)


WELL = Facts(
    layers=[
        layer("bronze.trades_raw", 0.5, False),
        layer("silver.trades", 4, False, 4),
        layer("gold.bars", 30, False),
        layer("gold.product_day", 60 * 24, False),
    ],
    services=RUNNING,
    lag={"sim.crypto.trades.raw": 12},
    stream_said_at=NOW - timedelta(seconds=20),
    airflow={"scheduler": "healthy", "triggerer": "healthy"},
)
BRONZE_LATE = replace(WELL, layers=[layer("bronze.trades_raw", 20, True), layer("silver.trades", 25, True)])
SILVER_LATE = replace(WELL, layers=[layer("bronze.trades_raw", 0.5, False), layer("silver.trades", 25, True)])
SCHEDULER = "marketflow logs airflow-scheduler"


@pytest.mark.parametrize(
    ("table", "minutes"),
    # of a daily table that of yesterday is the newest until the next day's run is over
    [
        *(("bronze.trades_raw", 3), ("silver.quotes", 15), ("gold.bars", 80), ("gold.product_day", 27 * 60)),
        *(("postgres gold.bars", 50), ("postgres gold.product_day", 27 * 60)),
    ],
)
def test_how_far_behind_a_table_may_be(table: str, minutes: int) -> None:
    assert late_after(table) == timedelta(minutes=minutes)


def test_where_nothing_is_late_nothing_is_said() -> None:
    assert causes(WELL, NOW) == []


@pytest.mark.parametrize(
    ("facts", "cause", "command"),
    [
        (
            replace(BRONZE_LATE, services=RUNNING | {"market-stream": "backoff"}),
            "stream down: market-stream is backoff",
            "marketflow logs market-stream",
        ),
        (
            replace(BRONZE_LATE, stream_said_at=NOW - timedelta(minutes=9)),
            "stream down: no batch started, ended or idled since 11:51:00 UTC",
            'scripts/airflow dags trigger market_stream --conf \'{"action": "restart", "reason": "it is silent"}\'',
        ),
        (
            replace(BRONZE_LATE, stopped=frozenset({"market-stream"})),
            "stream down: somebody stopped it by hand",
            'scripts/airflow dags trigger market_stream --conf \'{"action": "start", "reason": "bronze is late"}\'',
        ),
        (replace(BRONZE_LATE, services=RUNNING | {"kafka": "failed"}), "Kafka is failed", "marketflow logs kafka"),
        (replace(BRONZE_LATE, lag=None, services={}), "Kafka does not answer", "marketflow logs kafka"),
        (
            replace(BRONZE_LATE, lag={"sim.crypto.trades.raw": 80_000, "sim.crypto.ticker.raw": 500}),
            "lag: 80500 messages wait in Kafka, most of them in sim.crypto.trades.raw",
            "marketflow sql stream",
        ),
    ],
)
def test_a_late_bronze_names_the_stream_kafka_or_the_lag_and_silver_after_it_the_same(
    facts: Facts, cause: str, command: str
) -> None:
    bronze, silver = causes(facts, NOW)
    assert (bronze.table, bronze.age_s, bronze.cause, bronze.command) == ("bronze.trades_raw", 1200, cause, command)
    assert silver.cause == f"bronze.trades_raw before it is late: {cause}"
    assert silver.command == command


@pytest.mark.parametrize(
    ("facts", "cause", "command"),
    [
        (
            replace(SILVER_LATE, airflow={"scheduler": "unhealthy", "triggerer": "healthy"}),
            "scheduler behind: scheduler is unhealthy",
            SCHEDULER,
        ),
        (
            replace(SILVER_LATE, services=RUNNING | {"airflow-scheduler": "backoff"}),
            "scheduler behind: airflow-scheduler is backoff",
            SCHEDULER,
        ),
        (
            SILVER_LATE,
            "scheduler behind: Airflow is well and Dag advance has not brought it up to date; its last runs failed, "
            "wait or are paused",
            "scripts/airflow dags list-runs advance",
        ),
    ],
)
def test_a_late_silver_over_a_fresh_bronze_is_the_schedulers(facts: Facts, cause: str, command: str) -> None:
    (silver,) = causes(facts, NOW)
    assert (silver.table, silver.cause, silver.command) == ("silver.trades", cause, command)


def test_features_that_wait_for_late_quotes_are_told_of_by_the_quotes_alone() -> None:
    layers = [
        layer("silver.trades", 4, False, 4),
        layer("silver.quotes", 80, True),
        layer("gold.trade_features", 90, True),
    ]
    found = causes(replace(WELL, layers=layers, airflow={"scheduler": "unhealthy"}), NOW)
    assert [(one.table, one.follows) for one in found] == [("silver.quotes", False), ("gold.trade_features", True)]
    assert found[1].cause == "silver.quotes before it is late: scheduler behind: scheduler is unhealthy"
    assert [alert.key for alert in alerts(found)] == ["layer:silver"]


def test_a_layer_that_is_complete_and_gets_nothing_new_names_the_producers_that_are_silent() -> None:
    quiet = replace(WELL, layers=[layer("silver.trades", 2, False, 40)])
    told = {
        "producer-coinbase": ("silent", "No message has arrived for 2400 s."),
        "producer-binance": ("healthy", "It was silent and is well."),
    }
    (found,) = causes(replace(quiet, said=told), NOW)
    assert found.cause == "producer silent: producer-coinbase is silent: No message has arrived for 2400 s."
    assert (found.command, found.quiet) == ("marketflow sources", True)
    assert found.title == "silver.trades has had nothing new for 40 min 0 s"
    (unsaid,) = causes(quiet, NOW)
    assert unsaid.cause == "producer silent: producer-coinbase, producer-binance run and bring nothing"
    by_hand = replace(quiet, stopped=frozenset({"producer-coinbase", "producer-binance"}))
    assert causes(by_hand, NOW) == []


def test_a_table_that_its_gate_keeps_out_is_late_in_postgresql() -> None:
    (found,) = causes(replace(WELL, refused={"gold.bars": "bars_are_possible: 1 failing row"}), NOW)
    assert found.table == "postgres gold.bars"
    assert found.cause == "a hard check keeps its rows out of PostgreSQL: bars_are_possible: 1 failing row"


def test_a_copy_that_nobody_publishes_is_late_and_follows_a_late_gold() -> None:
    copies = [layer("postgres gold.bars", 60, True), layer("postgres gold.product_day", 60 * 20, False)]
    (found,) = causes(replace(WELL, layers=[*WELL.layers, *copies]), NOW)
    assert (found.table, found.follows) == ("postgres gold.bars", False)
    assert found.cause.startswith("scheduler behind: Airflow is well and Dag publish_bars has not brought it up")
    assert found.command == "scripts/airflow dags list-runs publish_bars"
    (alert,) = alerts([found])
    assert (alert.key, alert.title) == ("layer:postgres", "postgres gold.bars is late: complete 1 h 0 min ago")
    gold_late = replace(WELL, layers=[layer("gold.bars", 90, True), *copies])
    assert [(one.table, one.follows) for one in causes(gold_late, NOW)] == [
        ("gold.bars", False),
        ("postgres gold.bars", True),
    ]
    # gold may be late for longer than a copy: what is before it is the cause by then
    silver_late = replace(WELL, layers=[layer("silver.trades", 60, True), layer("gold.bars", 60, False), *copies])
    assert [(one.table, one.follows) for one in causes(silver_late, NOW)] == [
        ("silver.trades", False),
        ("postgres gold.bars", True),
    ]
    # what its gate keeps out is told of by that, once, and with its age
    (refused,) = causes(replace(WELL, layers=copies, refused={"gold.bars": "bars_add_up"}), NOW)
    assert (refused.table, refused.age_s, refused.follows) == ("postgres gold.bars", 3600, True)


def test_one_alert_a_layer_names_age_cause_and_command_and_what_follows_is_not_told_again() -> None:
    layers = [layer("bronze.ticker_raw", 12, True), *BRONZE_LATE.layers, layer("gold.bars", 90, True)]
    found = causes(replace(BRONZE_LATE, layers=layers, refused={"gold.bars": "bars_add_up"}), NOW)
    assert [one.table for one in found] == [
        *("bronze.ticker_raw", "bronze.trades_raw", "silver.trades", "gold.bars", "postgres gold.bars"),
    ]
    (alert,) = alerts(found)
    assert (alert.key, alert.layer, alert.age_s) == ("layer:bronze", "bronze.trades_raw", 1200.0)
    assert alert.text.splitlines() == [
        "bronze.trades_raw is late: complete 20 min 0 s ago; so is bronze.ticker_raw",
        "the stream works and is not behind: one of its queries may have ended or hang",
        "Run: marketflow sql stream",
    ]
    assert alert.more == {"tables": {"bronze.trades_raw": 1200.0, "bronze.ticker_raw": 720.0}}
