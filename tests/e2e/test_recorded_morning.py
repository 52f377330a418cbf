"""A recorded morning, from the venues' own messages to SQL: gold's Dags restate it, and `verify` judges it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import StaticTable
from pyiceberg.table.snapshots import Operation

from marketflow.contracts import tables as contracts
from marketflow.contracts.gold import PRICE_METRICS
from marketflow.lake import readers
from marketflow.lake.file_options import file_options
from marketflow.settings import Settings, load
from marketflow.stack import airflow, replay
from marketflow.warehouse.connection import connect
from tests.e2e.conftest import rewrite_hours, run_dags, verify
from tests.spark_options import SHORT_LIVED_SPARK

SPARK_AS_SHIPPED = True
HOURS = 3
PRODUCTS = "BTC-USD,ETH-USD"
DAGS = ("gold_price_metrics", "gold_trade_features", "gold_bars")


@pytest.fixture(scope="module")
def recorded(servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, datetime]:
    """Dataset replay after a three-hour capture went through every layer: its settings, its truth, its first hour."""
    folder = tmp_path_factory.mktemp("capture")
    # of a day that has ended and settled, whenever this runs
    start = (datetime.now(UTC) - timedelta(days=1, hours=1)).replace(hour=9, minute=0, second=0, microsecond=0)
    arguments = ["--out", str(folder / "capture.ndjson"), "--truth", str(folder / "truth"), "--hours", str(HOURS)]
    arguments += ["--start", start.isoformat(), "--rate", "0.5", "--seed", "11", "--assets", "20"]
    arguments += ["--poll-interval-s", "30", "--products", PRODUCTS]
    command = [sys.executable, "-m", "marketflow.simulator", "capture", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    settings = load(home=servers.home, dataset="replay")
    accounting = replay.run_on_servers(settings, [folder / "capture.ndjson"], fresh=True, say=lambda _: None)
    assert accounting.balanced, accounting.problems
    assert accounting.rejected == []
    return settings, folder / "truth", start


def _gold(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    with readers.duckdb(settings) as lake:
        return sorted(lake.execute(f"select * from {table}").fetchall(), key=repr)


def _lake_table(settings: Settings, table: str) -> StaticTable:
    location = readers.metadata_location(settings, contracts.table(table))
    return StaticTable.from_metadata(location, properties=file_options(settings))


def _writes(settings: Settings, table: str) -> list[list[datetime]]:
    """The hours of each commit that wrote some, the oldest first; compaction's has none."""
    summaries = [one.summary for one in _lake_table(settings, table).snapshots() if one.summary is not None]
    told = [one.additional_properties.get("marketflow.hours") for one in summaries]
    return [[datetime.fromisoformat(hour) for hour in json.loads(hours)] for hours in told if hours]


def _most_files(settings: Settings, table: str) -> int:
    """Of the partition that has the most."""
    return max(Counter(str(one.file.partition) for one in _lake_table(settings, table).scan().plan_files()).values())


def _compacted(settings: Settings, table: str) -> bool:
    """Whether a commit exchanged files for others of the same rows."""
    summaries = [one.summary for one in _lake_table(settings, table).snapshots() if one.summary is not None]
    return any(one.operation is Operation.REPLACE for one in summaries)


def _assert_kept_light(settings: Settings, tables: Sequence[str]) -> None:
    """A file a partition, for its day is over; and both kinds of daily upkeep are written down as done."""
    assert {table: _most_files(settings, table) for table in tables} == dict.fromkeys(tables, 1)
    assert any(_compacted(settings, table) for table in tables)
    assert {one.name for one in (settings.home / "upkeep").iterdir()} == {"airflow", "lake"}


def _days_of_trades(settings: Settings) -> list[tuple[Any, ...]]:
    """What gold.product_day is to say of the morning's day, by silver's trades."""
    question = """
    select product_id, date_trunc('day', min(event_ts)), arg_min(price, trade_id), max(price), min(price),
        arg_max(price, trade_id), sum(size), count(*), count(distinct date_trunc('hour', event_ts))
    from silver.trades group by product_id order by product_id
    """
    with readers.duckdb(settings) as lake:
        return lake.execute(question).fetchall()


@pytest.mark.timeout(1500)
def test_a_recorded_morning_is_true_in_every_layer_and_every_gold_dag_restates_it(
    recorded: tuple[Settings, Path, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, truth, start = recorded
    tables = ("gold.bars", "gold.price_metrics", "gold.product_day", "gold.top_movers", "gold.trade_features")
    before = {table: _gold(settings, table) for table in tables}
    assert len([row for row in before["gold.bars"] if row[2] == "1h"]) == HOURS * 2
    assert len(before["gold.trade_features"]) > HOURS * 2 * 1_000
    hours = [(start + timedelta(hours=hour)).isoformat() for hour in range(HOURS)]
    # what was written by Spark as it is shipped, its compilers and all, is written again by one that interprets
    monkeypatch.setenv("MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS", SHORT_LIVED_SPARK)
    rewrite_hours(settings, ("gold.bars", "gold.price_metrics", "gold.top_movers"), hours)
    # each Dag for an hour of its own choice: which hour a run is for is asked of Dags alone, in tests/dags
    wishes = [f"{dag}@{hour}" for dag, hour in zip(DAGS, hours, strict=True)]
    midnight = start.replace(hour=0)
    wishes.append(f"gold_daily@{midnight.isoformat()}")
    published = ["publish_bars", "publish_price_metrics", "publish_product_day"]
    published += ["publish_top_movers", "publish_trade_features"]
    days_written = _writes(settings, "gold.product_day")
    # the deep run cleans up the metadata database of the home too
    airflow.migrate(settings)
    states = run_dags(settings, *wishes, *published, 'maintain_lake {"deep": true}')
    assert len(states) == len(wishes) + len(published) + 1
    written = [_writes(settings, table)[-1] for table in ("gold.price_metrics", "gold.trade_features", "gold.bars")]
    assert written == [[datetime.fromisoformat(hour)] for hour in hours], "the Dags wrote the hours of their dates"
    assert _writes(settings, "gold.product_day") == [*days_written, [midnight]]
    _assert_kept_light(settings, tables)
    # compared table by table and as a truth value: a difference of thousands of rows is not for pytest to explain
    same = [table for table in tables if _gold(settings, table) == before[table]]
    assert same == list(tables), "an hour written twice is the same hour"
    days = "select product_id, day, open, high, low, close, volume, trade_count, hours from gold.product_day"
    with readers.duckdb(settings) as lake:
        assert lake.execute(f"{days} order by product_id").fetchall() == _days_of_trades(settings)
    judged = verify(settings, "--truth", str(truth), "--json")
    assert judged.returncode == 0, judged.stdout[-6000:] + judged.stderr[-2000:]
    with connect(settings, "marketflow_reader") as connection:
        counts = {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
        enriched = connection.execute(
            "select count(*) from mart.enriched_prices where id = 'bitcoin' and change_5min is not null"
        ).fetchone()[0]
    assert counts == {table: len(rows) for table, rows in before.items()}
    names = PRICE_METRICS.column_names
    asset, measure = names.index("asset_id"), names.index("change_5min")
    bitcoin = [row for row in before["gold.price_metrics"] if row[asset] == "bitcoin" and row[measure] is not None]
    assert enriched == len(bitcoin) > 200
