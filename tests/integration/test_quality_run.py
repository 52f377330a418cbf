"""The checks pass a consistent world, and each names the fault planted for it; results have history and trend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from marketflow.alerts.store import file_of
from marketflow.errors import ConfigurationError, QualityError
from marketflow.lake.tables import apply_contracts
from marketflow.quality import lake as lake_checks
from marketflow.quality import run as quality
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.stack.servers import free_ports
from marketflow.warehouse import checks, quality_results, schema
from marketflow.warehouse.connection import connect
from tests.integration import verify_world_stores
from tests.integration.layer_marks import marks_kept
from tests.integration.verify_world import World
from tests.receiver import Receiver, receiver

VERIFIED = {check.name for check in lake_checks.VERIFIED}
SQL = {check.name for check in checks.sql_checks()}


@pytest.fixture(scope="module")
def world(embedded: Settings, lake: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """In a dataset of its own; its truth is where verify looks for a simulator's."""
    settings = embedded.model_copy(update={"dataset": "quality"})
    postgres.bootstrap(settings)
    kafka.create_topics(settings)
    schema.apply(settings)
    apply_contracts(lake, settings)
    return verify_world_stores.build(settings, lake, tmp_path_factory.mktemp("truth"))


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


@pytest.fixture
def settings(world: World, hook: Receiver) -> Settings:
    file_of(world.settings).unlink(missing_ok=True)
    with world.postgres() as connection:
        connection.execute("truncate ops.alert, ops.quality_result")
    return world.settings.model_copy(update={"alert_url": hook.url})


def outcomes(report: quality.Report) -> dict[str, str]:
    return {one.name: one.outcome for one in report.results}


def not_passed(report: quality.Report) -> dict[str, str]:
    return {one.name: f"{one.outcome}: {one.detail}" for one in report.results if one.outcome != "passed"}


def test_a_consistent_world_passes_every_check_and_leaves_a_row_of_each(settings: Settings, hook: Receiver) -> None:
    names = [check.name for check in quality.every_check() if check is not quality.FRESHNESS]
    report = quality.run(settings, names=names, judged_hours=48)
    assert not_passed(report) == {}
    assert report.healthy
    report.raise_if_refused()
    assert set(outcomes(report)) == set(names) > VERIFIED | SQL
    rows = quality_results.history(settings, None, 100)
    assert {row["check_name"] for row in rows} == set(names)
    assert {(row["run_id"], row["stage"]) for row in rows} == {(report.run_id, "scheduled")}
    assert hook.bodies == []


def test_without_kafka_what_the_judge_says_is_unjudged_and_all_else_is_kept(settings: Settings) -> None:
    away = settings.model_copy(update={"kafka_port": free_ports(1)[0]})
    names = [*sorted(VERIFIED), "bars_are_possible"]
    report = quality.run(away, names=names, judged_hours=48)
    assert outcomes(report) == {**dict.fromkeys(VERIFIED, "unjudged"), "bars_are_possible": "passed"}
    assert {row["check_name"] for row in quality_results.history(settings, None, 100)} == set(names)


# check → what breaks it in PostgreSQL, and how often
PLANTED = {
    "bars_are_possible": ("update gold.bars set high = 1, low = 2 where {one_bar}", 1),
    "bars_add_up": ("update gold.bars set volume = volume + 1, buy_volume = buy_volume + 1 where {one_bar}", 1),
    "price_metrics_are_possible": ("update gold.price_metrics set sma_5m = 0 where {one_metric}", 1),
    "top_movers_are_ranked": ("update gold.top_movers set rank = 9 where {one_mover}", 1),
    "movers_are_of_metrics": ("update gold.top_movers set price = price + 1 where {one_mover}", 1),
    "trade_features_are_possible": ("update gold.trade_features set is_buy = not is_buy where {one_feature}", 1),
    "numbers_are_finite.price_metrics": (
        "update gold.price_metrics set change_5min = '-Infinity' where {one_metric}",
        1,
    ),
    "numbers_are_finite.top_movers": ("update gold.top_movers set change_5min = 'NaN' where {one_mover}", 1),
    "numbers_are_finite.trade_features": ("update gold.trade_features set log_return_1 = 'NaN' where {one_feature}", 1),
    "numbers_are_finite.product_day": (
        "insert into gold.product_day select venue, product_id, open_ts, open, high, low, close, volume, notional, "
        "vwap, trade_count, buy_volume, sell_volume, 'Infinity', 0, 1, 1, true from gold.bars where interval = '1d' "
        "limit 1",
        1,
    ),
    "rows_have_required_columns.bars": (
        "alter table gold.bars alter column volume drop not null; update gold.bars set volume = null where {one_bar}",
        1,
    ),
    "product_days_are_possible": (
        "insert into gold.product_day select venue, product_id, date_trunc('day', now()), 1, 2, 3, 1, 1, 1, 1, 1, 1, "
        "0, null, 0, 1, 1, true from gold.bars limit 1",
        1,
    ),
    # days as their bars have them, but for the volume of one
    "days_are_of_bars": (
        "insert into gold.product_day select venue, product_id, open_ts, open, high, low, close, volume + case when "
        "product_id = (select min(product_id) from gold.bars where interval = '1d') then 1 else 0 end, notional, vwap, "
        "trade_count, buy_volume, sell_volume, null, 0, 1, 1, true from gold.bars where interval = '1d' "
        "and open_ts = (select max(open_ts) from gold.bars where interval = '1d')",
        1,
    ),
    "accounts_balance": (
        "update ops.silver_accounting set ignored = ignored + 1 where table_name = 'silver.trades'",
        None,
    ),
    "features_are_accounted_for": ("update ops.gold_accounting set left_out = left_out + 1", None),
    "gaps_are_closed": ("update ops.trade_gap set status = 'open', detected_at = now() - interval '2 hours'", None),
    # of a source that is asked for named assets
    "assets_are_not_stale": (
        "insert into live.asset_observation select (jsonb_populate_record(o, jsonb_build_object('source', 'binance', "
        "'last_updated', last_updated - case when asset_id = (select min(asset_id) from live.asset_observation) "
        "then interval '2 hours' else interval '0' end))).* from live.asset_observation as o",
        1,
    ),
}
PICKED = {
    "one_bar": "(product_id, interval, open_ts) = (select product_id, interval, open_ts from gold.bars "
    "where interval = '1m' and trade_count > 0 order by open_ts desc limit 1)",
    "one_metric": "(asset_id, ts) = (select asset_id, ts from gold.price_metrics order by ts desc, asset_id limit 1)",
    "one_mover": "(snapshot_ts, direction, rank) = (select snapshot_ts, direction, rank from gold.top_movers "
    "where rank = 5 and snapshot_ts < (select min(published_through) from ops.publish_audit "
    "where table_name in ('gold.top_movers', 'gold.price_metrics')) order by snapshot_ts desc, direction limit 1)",
    "one_feature": "trade_id = (select max(trade_id) from gold.trade_features)",
}


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_row_is_found_by_its_check_with_a_sample(world: World, name: str) -> None:
    statement, expected = PLANTED[name]
    (check,) = [one for one in checks.sql_checks() if one.name == name]
    with psycopg.connect(world.settings.dsn()) as connection:  # rolled back
        connection.execute("update ops.publish_audit set published_through = now()")
        before = checks.run(connection, check, None)
        changed = 0
        for one in statement.format(**PICKED).split("; "):
            changed = connection.execute(one).rowcount
        assert changed > 0, "nothing was planted"
        after = checks.run(connection, check, None)
        connection.rollback()
    assert (before.outcome, before.failing_rows) == ("passed", 0)
    assert after.outcome == "failed"
    assert after.failing_rows == (expected or changed)
    assert after.sample


def test_what_every_check_needs_of_planted_faults_is_here() -> None:
    """Keys that PostgreSQL itself forbids are planted in test_publish_gate; the rest are one check for each table."""
    single = {check.name for check in checks.sql_checks() if "." not in check.name} | {
        "rows_have_required_columns.bars"
    }
    assert single <= set(PLANTED)


def test_a_crossed_quote_and_a_size_of_nothing_are_found_in_the_lake(world: World, settings: Settings) -> None:
    quotes, trades = world.snapshot("silver.quotes"), world.snapshot("silver.trades")
    names = ["quotes_are_not_crossed", "silver_values_are_possible"]
    try:
        world.spark.sql(
            f"update {world.name('silver.quotes')} set best_bid = best_ask "
            "where product_id = 'BTC-USD' and last_trade_id = 1077"
        )
        world.spark.sql(f"update {world.name('silver.trades')} set size = 0 where trade_id = 5124")
        report = quality.run(settings, names=names)
    finally:
        world.roll_back("silver.quotes", quotes)
        world.roll_back("silver.trades", trades)
    found = {one.name: (one.outcome, one.failing_rows) for one in report.results}
    assert found == dict.fromkeys(names, ("failed", 1))
    assert [one.name for one in report.refused] == ["silver_values_are_possible"]


def test_an_asset_that_is_listed_and_not_priced_is_found_and_one_that_has_left_the_list_is_not(
    world: World, settings: Settings
) -> None:
    name, before = world.name("bronze.prices_raw"), world.snapshot("bronze.prices_raw")
    newest = f"received_at = (select max(received_at) from {name} where venue = 'coingecko')"
    (row,) = world.spark.sql(f"select cast(value as string) as page from {name} where {newest}").collect()
    page = json.loads(row.page)
    late = page[2] | {"last_updated": "2026-01-01T00:00:00.000Z"}
    others = [*page[:2], *page[3:]]

    def found(listed: list[dict[str, Any]], before_it: list[dict[str, Any]] | None = None) -> tuple[str, Any]:
        try:
            if before_it is not None:
                change(f"venue = 'coingecko' and not ({newest})", before_it)
            change(newest, listed)
            (result,) = quality.run(settings, names=["listed_assets_are_priced"]).results
            return result.outcome, [one["asset_id"] for one in result.sample]
        finally:
            world.roll_back("bronze.prices_raw", before)

    def change(where: str, listed: list[dict[str, Any]]) -> None:
        value = json.dumps(listed).encode().hex()
        world.spark.sql(f"update {name} set value = X'{value}' where {where}")

    assert found(page) == ("passed", [])
    assert found([*others, late]) == ("failed", [late["id"]])
    assert found(others, before_it=[*others, late]) == ("passed", []), "the pages before had it, with an old price"


def test_a_bar_that_is_not_of_its_trades_fails_its_check_and_is_told_until_it_is_mended(
    world: World, settings: Settings, hook: Receiver
) -> None:
    bars = world.snapshot("gold.bars")
    chosen = sorted(VERIFIED)
    try:
        world.spark.sql(
            f"update {world.name('gold.bars')} set volume = volume + 1, buy_volume = buy_volume + 1 "
            "where product_id = 'ETH-USD' and interval = '5m' and trade_count > 0"
        )
        # a hand in PostgreSQL, whose rows are held against the snapshot that was published
        with world.postgres() as connection:
            connection.execute("update gold.trade_features set size = size * 2")
        report = quality.run(settings, names=chosen, judged_hours=48)
        again = quality.run(settings, names=chosen, judged_hours=48)
    finally:
        world.roll_back("gold.bars", bars)
        with world.postgres() as connection:
            connection.execute("update gold.trade_features set size = size / 2")
    failed = {name for name, outcome in outcomes(report).items() if outcome == "failed"}
    assert failed == {"bars_are_of_trades", "gold_is_in_postgres"}
    with pytest.raises(QualityError, match=r"bars_are_of_trades: .*To do: .*Dag gold_bars") as caught:
        again.raise_if_refused()
    assert caught.value.told
    mended = quality.run(settings, names=chosen, judged_hours=48)
    assert not_passed(mended) == {}
    assert sorted(hook.said("key", "status", "owner")) == sorted(
        (f"quality:{name}", status, owner)
        for name, owner in (("bars_are_of_trades", "gold_bars"), ("gold_is_in_postgres", "publish"))
        for status in ("firing", "resolved")
    )
    of_bars = {one["check_name"] for one in quality_results.trend(settings, None, 14, subject="gold.bars")}
    assert "bars_are_of_trades" in of_bars
    assert of_bars == {row["check_name"] for row in quality_results.history(settings, None, 1000, subject="gold.bars")}
    assert quality_results.trend(settings, None, 14, subject="gold.nothing") == []
    (day,) = quality_results.trend(settings, "bars_are_of_trades", 14)
    assert {name: day[name] for name in ("runs", "passed", "failed", "unjudged", "last_failing_rows")} == {
        "runs": 3,
        "passed": 1,
        "failed": 2,
        "unjudged": 0,
        "last_failing_rows": 0,
    }
    assert (float(day["pass_rate_pct"]), day["worst_failing_rows"] > 0) == (33.33, True)


def test_a_lake_that_cannot_be_read_leaves_its_checks_unjudged_and_ends_no_alert(
    settings: Settings, hook: Receiver
) -> None:
    away = settings.model_copy(update={"s3_port": free_ports(1)[0]})
    report = quality.run(away, names=["quotes_are_not_crossed", "bars_are_of_trades", "accounts_balance"])
    assert outcomes(report) == {
        "accounts_balance": "passed",
        "bars_are_of_trades": "unjudged",
        "quotes_are_not_crossed": "unjudged",
    }
    assert hook.bodies == []


def test_hard_checks_that_nobody_could_ask_for_an_hour_are_one_alert_until_they_can_be_asked(
    settings: Settings, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = settings.model_copy(update={"s3_port": free_ports(1)[0]})
    # only runs of all checks tell of it, and all are this one here
    mine = [one for one in quality.every_check() if one.name == "bars_are_of_trades"]
    monkeypatch.setattr(quality, "every_check", lambda: mine)
    quality.run(away)
    assert hook.bodies == []
    monkeypatch.setattr(quality, "UNASKED_FOR", timedelta(0))
    quality.run(away)
    quality.run(away)
    ((key, status, text),) = hook.said("key", "status", "text")
    assert (key, status) == ("quality:unasked", "firing")
    assert text.startswith("1 hard check could not be asked for an hour\nbars_are_of_trades since ")
    quality.run(settings)
    assert hook.said("key", "status")[1:] == [("quality:unasked", "resolved")]


def test_a_table_that_the_catalog_lacks_leaves_the_lakes_checks_unjudged_and_all_else_is_kept(
    world: World, settings: Settings
) -> None:
    """As on a dataset whose lake is being made, or whose table somebody dropped."""
    rename = "update iceberg_tables set catalog_name = %s where table_namespace = %s and table_name = 'quotes'"
    names = ["quotes_are_not_crossed", "bars_are_of_trades", "accounts_balance"]

    def renamed(catalog: str) -> int:
        with connect(settings, "iceberg", database="iceberg_catalog") as connection:
            return connection.execute(rename, [catalog, settings.namespace("silver")]).rowcount

    assert renamed("elsewhere") == 1
    try:
        report = quality.run(settings, names=names)
    finally:
        renamed("lake")
    assert outcomes(report) == {
        "accounts_balance": "passed",
        "bars_are_of_trades": "unjudged",
        "quotes_are_not_crossed": "unjudged",
    }
    (said,) = [one.detail for one in report.results if one.name == "quotes_are_not_crossed"]
    assert said == "could not be asked: silver.quotes of dataset quality is not in the catalog: run `make up`"
    assert {row["check_name"] for row in quality_results.history(settings, None, 100)} == set(names)


def test_a_postgresql_that_is_away_is_told_and_no_check_passes(settings: Settings, hook: Receiver) -> None:
    away = settings.model_copy(update={"postgres_port": free_ports(1)[0]})
    report = quality.run(away, names=["accounts_balance", "bars_are_of_trades"])
    assert (set(outcomes(report).values()), report.recorded, report.healthy) == ({"unjudged"}, False, False)
    assert hook.said("key", "status", "command") == [("postgres:away", "firing", "marketflow logs postgres")]
    quality.run(settings, names=["accounts_balance"])
    assert hook.said("key", "status")[1:] == [("postgres:away", "resolved")]


def test_a_check_that_there_is_not_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="no check nonsense; `marketflow quality list` shows them"):
        quality.run(settings, names=["nonsense"])


def test_a_late_layer_is_told_with_its_age_and_cause_and_is_over_when_it_is_there(
    world: World, settings: Settings, hook: Receiver
) -> None:
    def said() -> list[Any]:
        return [body for body in hook.bodies if body["layer"] == "silver.trades"]

    with marks_kept(settings, emptied=False) as connection:
        connection.execute("update ops.layer_mark set complete_through = now(), newest_event_at = null")
        connection.execute(
            "update ops.layer_mark set complete_through = now() - interval '40 minutes' "
            "where table_name = 'silver.trades'"
        )
        found, asked = quality.tell_of_lateness(settings)
        assert (asked, [one.table for one in found]) == (True, ["silver.trades"])
        report = quality.run(settings, names=["layers_are_fresh"])
        assert outcomes(report) == {"layers_are_fresh": "failed"}
        connection.execute("update ops.layer_mark set complete_through = now()")
        assert quality.tell_of_lateness(settings) == ([], True)
    first, last = said()
    assert first["text"].startswith("silver.trades is late: complete 40 min 0 s ago\nscheduler behind: ")
    assert (first["age_s"] >= 2400, first["command"]) == (True, "scripts/airflow dags list-runs advance")
    assert last["status"] == "resolved"
