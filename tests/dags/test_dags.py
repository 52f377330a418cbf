"""What every Dag of the project keeps to."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.definitions.deadline import DeadlineAlert
from airflow.serialization.serialized_objects import DagSerialization

from marketflow.contracts.gold import GOLD_TABLES
from marketflow.stack.airflow import POOLS
from marketflow_airflow.defaults import Tag
from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.interval import GRAINS, KEY_FORMATS
from marketflow_airflow.notify import AlertNotifier, RecoveryNotifier, RetryNotifier, deadline_met, run_timed_out
from marketflow_airflow.spark import SPARK_POOL, SparkJobOperator
from tests import airflow_home

EXPECTED = {
    "producers",
    "market_stream",
    "stream_reset",
    "advance",
    "heal_gaps",
    "backfill_history",
    "silver",
    "gold_price_metrics",
    "gold_bars",
    "gold_trade_features",
    "gold_daily",
    "publish_product_day",
    "publish_trade_features",
    "publish_price_metrics",
    "publish_top_movers",
    "publish_bars",
    "maintain_lake",
    "crawl_catalog",
    "quality",
    "train_forecast",
}
HOURS_3_TO_5 = [f"2026-11-20T0{hour}:00:00" for hour in (3, 4, 5)]
HOURLY_BY_PARTITION = {"silver", "gold_price_metrics", "gold_bars", "gold_trade_features"}
# the task that reads a layer, and the layer before it that must be complete first
FRESH_BEFORE = {
    "silver": (
        "close_hour",
        ["bronze.trades_raw", "bronze.ticker_raw", "bronze.prices_raw", "bronze.candles_raw"],
        timedelta(0),
    ),
    "gold_bars": ("rewrite_hours", ["silver.trades"], timedelta(seconds=60)),
    "gold_price_metrics": ("rewrite_hours", ["silver.asset_prices"], timedelta(seconds=60)),
    "gold_trade_features": ("rewrite_hours", ["silver.trades", "silver.quotes"], timedelta(seconds=60)),
    "gold_daily": ("rewrite_days", ["gold.bars"], timedelta(seconds=60)),
    "publish_bars": ("publish", ["gold.bars"], timedelta(hours=-1)),
    "publish_product_day": ("publish", ["gold.product_day"], timedelta(hours=-25)),
    "publish_trade_features": ("publish", ["gold.trade_features"], timedelta(hours=-1)),
    "publish_price_metrics": ("publish", ["gold.price_metrics"], timedelta(hours=-1)),
    "publish_top_movers": ("publish", ["gold.top_movers"], timedelta(hours=-1)),
    "train_forecast": ("train", ["gold.trade_features"], timedelta(0)),
}
PARSE = """
import json, sys, time
sys.path += json.loads(sys.argv[1])
from airflow.dag_processing.dagbag import DagBag
before, start = set(sys.modules), time.process_time()
bag = DagBag(sys.argv[2], bundle_name="dags-folder")
print(json.dumps({"dags": sorted(bag.dags), "cpu_s": time.process_time() - start, "modules": sorted(sys.modules)}))
"""
HEAVY = {
    "pyspark",
    "confluent_kafka",
    "polars",
    "pandas",
    "pyarrow",
    "numpy",
    "psycopg",
    "lightgbm",
    "pydantic_settings",
    "duckdb",
}


def test_the_project_has_exactly_these_dags(dags):
    assert set(dags) == EXPECTED


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_a_dag_keeps_the_house_rules(dags, dag_id):
    dag = dags[dag_id]
    for section in ("**Reads", "**Rerun**", "**Backfill**", "**When it fails**", "**Schedule**"):
        assert section in dag.doc_md, section
    assert "rites** " in dag.doc_md
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.dagrun_timeout is not None
    assert dag.tags
    assert dag.tags <= set(Tag)
    assert dag.start_date is not None


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_a_task_has_an_owner_a_timeout_retries_and_someone_to_tell(dags, dag_id):
    for task in dags[dag_id].tasks:
        assert task.owner == "market-data"
        assert timedelta(0) < task.execution_timeout <= dags[dag_id].dagrun_timeout, task.task_id
        assert task.retries >= 1
        assert [type(callback) for callback in task.on_failure_callback] == [AlertNotifier]
        assert [type(callback) for callback in task.on_retry_callback] == [RetryNotifier]
        assert [type(callback) for callback in task.on_success_callback] == [RecoveryNotifier]


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_a_dag_that_did_not_change_is_no_new_version_by_its_next_parse(dags, dag_id):
    """Airflow compares what it serialized, in which an address of an object is another one in each process."""
    assert " at 0x" not in json.dumps(DagSerialization.serialize_dag(dags[dag_id]), default=str)


def longest(task):
    """All tries of a task that ends each by its timeout, and the longest pauses between them."""
    pauses = timedelta(0)
    for number in range(task.retries):
        pause = task.retry_delay
        if task.retry_exponential_backoff:  # Airflow takes up to twice of it, at random
            pause = min(2 * task.retry_delay * task.retry_exponential_backoff**number, task.max_retry_delay)
        pauses += pause
    return (task.retries + 1) * task.execution_timeout + pauses


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_a_task_that_hangs_in_every_try_has_had_its_last_one_before_its_run_is_ended(dags, dag_id):
    """At a run's timeout Airflow skips what is left, and calls nobody: the task's own failure is what is told.

    What comes before a task, a sensor or the pool, is not counted here: of a run that is ended for that the Dag tells.
    """
    dag = dags[dag_id]
    assert dag.on_failure_callback is run_timed_out
    assert {task.task_id: longest(task) for task in dag.tasks if longest(task) > dag.dagrun_timeout} == {}


@pytest.mark.parametrize(
    ("dag_id", "first", "last", "keys"),
    [
        *((dag, "2026-11-20T03:00", "2026-11-20T05:00", HOURS_3_TO_5) for dag in sorted(HOURLY_BY_PARTITION)),
        ("gold_daily", "2026-11-20", "2026-11-22", ["2026-11-20", "2026-11-21", "2026-11-22"]),
        ("gold_daily", "2026-11-20", "2026-11-20", ["2026-11-20"]),
    ],
)
def test_a_backfill_has_the_runs_that_the_runbook_promises(dags, dag_id, first, last, keys):
    """What `airflow backfill create --from-date … --to-date …` asks for: both ends are inclusive."""
    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dags[dag_id]))
    begin, end = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (first, last))
    assert [info.partition_key for info in dag.iter_dagrun_infos_between(begin, end)] == keys


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_the_schedule_goes_before_a_backfill(dags, dag_id):
    """As the scheduler sees it: from the serialized Dag, by the id that Airflow gives a run.

    And the rounds, which are promised within a minute, go before the rest of the schedule.
    """
    for task in DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dags[dag_id])).tasks:
        run_ids = (
            "scheduled__2026-11-20T05:00:00+00:00",
            "manual__x",
            "asset_triggered__x",
            "backfill__2026-11-20T05:00:00+00:00",
        )
        weights = [task.weight_rule.get_weight(SimpleNamespace(run_id=run, dag_id=dag_id)) for run in run_ids]
        assert weights == ([20] * 4 if dag_id in ("stream_reset", "producers", "market_stream") else [10, 10, 10, 1])


def test_spark_applications_share_the_one_slot_pool_and_nothing_else_is_in_it(dags):
    in_pool = {task for dag in dags.values() for task in dag.tasks if task.pool == SPARK_POOL}
    assert in_pool == {task for dag in dags.values() for task in dag.tasks if isinstance(task, SparkJobOperator)}
    assert len(in_pool) == 9
    assert POOLS[SPARK_POOL]["slots"] == 1


def test_between_every_two_layers_stands_a_freshness_sensor(dags):
    found = {}
    for dag_id, dag in dags.items():
        for sensor in (task for task in dag.tasks if isinstance(task, FreshnessSensor)):
            (following,) = sensor.downstream_task_ids
            found[dag_id] = (following, sensor.tables, sensor.beyond)
    assert found == FRESH_BEFORE


def test_dags_of_an_hour_or_day_have_partitions_before_their_run_and_a_form(dags):
    by_partition = {dag_id for dag_id, dag in dags.items() if "partition" in dag.params}
    assert by_partition == HOURLY_BY_PARTITION | {"gold_daily"}
    for dag_id in by_partition:
        timetable = dags[dag_id].timetable
        grain = GRAINS.get(dag_id, "hour")
        assert (timetable.run_offset, timetable.key_format) == (-1, KEY_FORMATS[grain])
        assert dags[dag_id].params.get_param("partition").schema["title"] == f"Start of the {grain} (UTC)"
    assert set(GRAINS) == {"gold_daily"}
    assert KEY_FORMATS == {"hour": "%Y-%m-%dT%H:%M:%S", "day": "%Y-%m-%d"}


def test_every_dag_runs_from_the_start_but_the_forecast(dags):
    assert {dag_id for dag_id, dag in dags.items() if dag.is_paused_upon_creation} == {"train_forecast"}


def test_who_waits_for_gold_is_told_when_it_is_late(dags):
    told = {dag_id for dag_id, dag in dags.items() if any(isinstance(one, DeadlineAlert) for one in dag.deadline or [])}
    assert told == {dag_id for dag_id in EXPECTED if dag_id.startswith(("gold_", "publish_"))}
    assert told == {dag_id for dag_id, dag in dags.items() if dag.on_success_callback is deadline_met}


def test_runbooks_of_publication_name_the_dag_that_writes_the_table_anew():
    from assets import OWNERS

    assert {table.qualified: table.owner for table in GOLD_TABLES} == OWNERS


def test_the_asset_graph_leads_from_every_end_back_to_the_bronze_that_it_is_made_from(dags):
    made_from = {}
    for dag in dags.values():
        for task in dag.tasks:
            for asset in task.outlets:
                made_from.setdefault(asset.name, set()).update(inlet.name for inlet in task.inlets)

    def origins(name):
        return {name} if name.startswith("bronze.") else {top for one in made_from[name] for top in origins(one)}

    assert {name: origins(name) for name in made_from if name.startswith("postgres.")} == {
        "postgres.gold.bars": {"bronze.trades_raw"},
        "postgres.gold.product_day": {"bronze.trades_raw"},
        "postgres.gold.trade_features": {"bronze.trades_raw", "bronze.ticker_raw"},
        "postgres.gold.price_metrics": {"bronze.prices_raw"},
        "postgres.gold.top_movers": {"bronze.prices_raw"},
    }
    assert made_from["postgres.gold.product_day"] == {"gold.product_day"}
    assert made_from["gold.product_day"] == {"gold.bars"}
    assert made_from["glue.catalog"] > {name for name in made_from if name.startswith(("silver.", "gold."))}


def test_each_table_emits_its_asset_and_publication_wakes_by_it(dags):
    emitted = {}
    for dag_id, dag in dags.items():
        for task in dag.tasks:
            for asset in task.outlets:
                emitted.setdefault(dag_id, set()).add(asset.name)
    silver = {"silver.trades", "silver.quotes", "silver.asset_prices", "silver.candles"}
    gold = {"gold.price_metrics", "gold.top_movers", "gold.bars", "gold.trade_features"}
    assert emitted == {
        "advance": silver | gold,
        "silver": silver,
        "gold_bars": {"gold.bars"},
        "gold_daily": {"gold.product_day"},
        "gold_price_metrics": {"gold.price_metrics", "gold.top_movers"},
        "gold_trade_features": {"gold.trade_features"},
        "publish_bars": {"postgres.gold.bars"},
        "publish_product_day": {"postgres.gold.product_day"},
        "publish_trade_features": {"postgres.gold.trade_features"},
        "publish_price_metrics": {"postgres.gold.price_metrics"},
        "publish_top_movers": {"postgres.gold.top_movers"},
        "crawl_catalog": {"glue.catalog"},
    }
    for table in (*gold, "gold.product_day"):
        wakes = dags[f"publish_{table.removeprefix('gold.')}"].timetable.asset_condition
        assert [asset.name for asset in wakes.objects] == [table]


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_a_dag_comes_back_from_the_database_as_it_went_in(dags, dag_id):
    dag = dags[dag_id]
    back = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert {task.task_id: (task.downstream_task_ids, task.pool, task.retries) for task in back.tasks} == {
        task.task_id: (task.downstream_task_ids, task.pool, task.retries) for task in dag.tasks
    }
    assert {task.task_id: [asset.name for asset in task.outlets] for task in back.tasks} == {
        task.task_id: [asset.name for asset in task.outlets] for task in dag.tasks
    }
    assert type(back.timetable).__name__ == type(dag.timetable).__name__
    assert (back.catchup, back.max_active_runs, set(back.params)) == (False, 1, set(dag.params))


def test_parsing_is_cheap_and_loads_nothing_heavy(record_property):
    folders = [str(airflow_home.PLUGINS_FOLDER), str(airflow_home.DAGS_FOLDER)]
    command = [sys.executable, "-c", PARSE, json.dumps(folders), str(airflow_home.DAGS_FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    record_property("parse", f"parse of {len(said['dags'])} Dags: {said['cpu_s']:.2f} s CPU")
    assert set(said["dags"]) == EXPECTED
    assert HEAVY & set(said["modules"]) == set()
    # CPU time of all files together; a heavy import alone costs more
    assert said["cpu_s"] < 3


def test_no_dag_and_no_plugin_touches_the_metadata_database():
    forbidden = ("airflow.models", "airflow.settings", "airflow.utils.session", "sqlalchemy")
    checked = [*airflow_home.DAGS_FOLDER.rglob("*.py"), *airflow_home.PLUGINS_FOLDER.rglob("*.py")]
    assert len(checked) >= 15
    for path in checked:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(forbidden)], path
