"""verify calls a consistent world clean, and names layer, product and key of every single fault, and nothing else."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from marketflow import verify
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.verify import Report
from marketflow.warehouse import schema
from tests.integration import verify_world, verify_world_stores
from tests.integration.verify_faults import (
    Target,
    broken_bytes,
    changed_lake,
    changed_ops,
    changed_postgres,
    lake_targets,
    postgres_targets,
    record_of,
)
from tests.integration.verify_world import World


@pytest.fixture(scope="module")
def world(embedded: Settings, lake: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """In a dataset of its own, so that no other test's rows are in it; its name is none that settings would load."""
    settings = embedded.model_copy(update={"dataset": "verify"})
    postgres.bootstrap(settings)
    kafka.create_topics(settings)
    schema.apply(settings)
    apply_contracts(lake, settings)
    return verify_world_stores.build(settings, lake, tmp_path_factory.mktemp("truth"))


def judged(world: World, **arguments: Any) -> Report:
    return verify.run(world.settings, truth_folder=world.truth_folder, output=lambda line: None, **arguments)


def found(report: Report) -> list[tuple[str, str, str, str]]:
    return [(one.layer, one.table, one.product, one.kind) for one in report.problems]


def test_a_consistent_world_is_clean_and_everything_in_it_was_compared(world: World) -> None:
    report = judged(world)
    assert "\n".join(report.lines()).endswith(f"clean ({report.seconds:.1f} s)"), "\n".join(report.lines())
    assert report.cut == world.now - timedelta(seconds=5)
    compared: dict[str, int] = {}
    for one in report.comparisons:
        compared[f"{one.layer} {one.table}"] = compared.get(f"{one.layer} {one.table}", 0) + one.compared
    # the truth knows nothing of what another's client polled
    received = sum(row["venue"] == "coinbase_exchange" for row in world.rows["silver.trades"])
    assert received < len(world.rows["silver.trades"])
    assert compared["bronze bronze.trades_raw"] == received + len(world.records["trades"])
    for qualified, rows in world.rows.items():
        assert compared[f"{qualified.split('.')[0]} {qualified}"] == len(rows), qualified
    assert compared["postgres gold.bars"] == len(world.rows["gold.bars"])
    assert compared["postgres gold.trade_features"] == len(world.rows["gold.trade_features"]) > 60
    has_quote = [row["best_bid"] is not None for row in world.rows["gold.trade_features"]]
    assert 20 < sum(has_quote) < len(has_quote)
    assert compared["live live.asset_observation"] == len(world.rows["silver.asset_prices"])
    assert compared["live live.price_metrics"] == len(world.rows["gold.price_metrics"])
    assert compared["live live.top_movers"] == len(world.rows["gold.top_movers"]) > 0


def test_ids_in_an_open_hole_are_known_gaps_and_not_missing(world: World) -> None:
    gaps = {(one.table, one.product): one.known_gap for one in judged(world, layers=("bronze",)).comparisons}
    assert gaps["bronze.trades_raw", "BTC-USD"] == len(verify_world.LOST)
    assert gaps["bronze.trades_raw", "ETH-USD"] == 0


def test_trades_from_before_the_feed_are_judged_where_they_were_asked_for_and_missed_nowhere(world: World) -> None:
    """Between a backfilled interval and the feed's first trade nobody listened: none is missing, but the bars tell."""
    report = judged(world)
    assert "310 trades of the truth were made before" not in "\n".join(report.notes), "ten of them are compared"
    assert "300 trades of the truth were made before collection began and are not asked for" in report.notes
    assert report.problems == []
    trades = {row["trade_id"]: row for row in world.rows["silver.trades"] if row["product_id"] == "BTC-USD"}
    assert trades.keys() >= set(verify_world.BACKFILLED)
    hole = (trades[verify_world.BACKFILLED[-1]]["event_ts"], trades[1000]["event_ts"])
    across = [
        bar
        for bar in world.rows["gold.bars"]
        if (bar["product_id"], bar["interval"]) == ("BTC-USD", "1m") and hole[0] <= bar["open_ts"] < hole[1]
    ]
    assert len(across) > 20
    assert all(bar["has_gap"] for bar in across)
    with broken_bytes(world) as spoilt:
        (problem,) = judged(world, layers=("bronze",)).problems
    assert (problem.kind, problem.product, spoilt in str(problem)) == ("differing", "BTC-USD", True)


def test_a_simulated_dataset_whose_truth_is_gone_is_not_called_clean(embedded: Settings, lake: SparkSession) -> None:
    del lake
    assert not (embedded.home / "truth").exists()
    report = verify.run(embedded, at_rest=True, layers=("bronze",), output=lambda line: None)
    told = {(one.table, one.kind) for one in report.problems}
    assert {("bronze.trades_raw", "no truth"), ("bronze.prices_raw", "no truth")} <= told


@pytest.mark.parametrize("fault", ["missing", "duplicate", "differing"])
def test_one_wrong_row_in_each_table_of_the_lake_is_named_and_nothing_else(world: World, fault: str) -> None:
    targets = lake_targets(world)
    with ExitStack() as changes:
        for target in targets:
            changes.enter_context(changed_lake(world, target, fault))
        report = judged(world)
    expected = {(target.layer, target.table, target.product, fault): target.key for target in targets}
    if fault != "differing":
        # a record is missing or double by its offset; a trade that no record tells any more is missing besides
        spot = record_of(world, 5123)
        if fault == "duplicate":
            del expected["bronze", "bronze.trades_raw", "ETH-USD", fault]
        expected["bronze", "bronze.trades_raw", f"partition {spot['partition']}", fault] = f"offset {spot['offset']}"
    assert {one: examples[0].startswith(expected.get(one, "?")) for one, examples in named(report)} == (
        dict.fromkeys(expected, True)
    )
    assert all(one.count == 1 for one in report.problems)


def named(report: Report) -> list[tuple[tuple[str, str, str, str], tuple[str, ...]]]:
    return list(zip(found(report), (one.examples for one in report.problems), strict=True))


@pytest.mark.parametrize("fault", ["missing", "duplicate", "differing"])
def test_one_wrong_row_in_each_table_of_postgres_is_named_and_nothing_else(world: World, fault: str) -> None:
    targets = postgres_targets(world)
    with ExitStack() as changes:
        for target in targets:
            changes.enter_context(changed_postgres(world, target, fault))
        report = judged(world)
    expected = {(target.layer, target.table, target.product, fault): target.key for target in targets}
    assert {one: examples[0].startswith(expected.get(one, "?")) for one, examples in named(report)} == (
        dict.fromkeys(expected, True)
    )
    assert all(one.count == 1 for one in report.problems)


def test_a_wrong_feature_target_or_finality_is_named_with_its_column_also_where_sql_cannot_tell(world: World) -> None:
    """The first and the last row of an hour are always looked at by the oracle; what SQL tells is told of every row."""
    rows = world.rows["gold.trade_features"]
    changes = {
        "macd_signal_9": (rows[0], "macd_signal_9 + 0.000001"),
        "kyle_lambda_500": (rows[-1], "kyle_lambda_500 * 1.00000001"),
        "gaps_in_window_500": (rows[20], "gaps_in_window_500 + 1"),
        "quote_age_ms": (next(row for row in rows[21:] if row["best_bid"]), "quote_age_ms + 0.001"),
        "target_return_10": (rows[13], "target_return_10 + 0.0000001"),
        "target_direction_50": (rows[14], "coalesce(1 - target_direction_50, 1)"),
        "is_final": (rows[15], "not is_final"),
        "price": (rows[16], "price + 0.00000001"),
    }
    named = []
    for part in (list(changes)[:4], list(changes)[4:]):  # of one kind five rows are named
        columns = []
        for name in part:
            row, value = changes[name]
            columns.append(f"{name} = case when trade_id = {row['trade_id']} then {value} else {name} end")
        target = Target("gold", "gold.trade_features", "true", ", ".join(columns), "BTC-USD", "")
        with changed_lake(world, target, "differing"):
            (problem,) = judged(world, layers=("gold",), at_rest=True).problems
        assert (problem.table, problem.product, problem.kind) == ("gold.trade_features", "BTC-USD", "differing")
        assert problem.count == len(part)
        named += problem.examples
    for name, (row, _) in changes.items():
        assert any(one.startswith(f"coinbase_exchange BTC-USD {row['trade_id']} ({name}: expected ") for one in named)


def test_an_account_of_features_that_names_other_counts_or_is_gone_is_named(world: World) -> None:
    account = "where product_id = 'BTC-USD' and row_count > 0"
    with changed_ops(
        world,
        f"update ops.gold_accounting set row_count = row_count - 1, left_out = left_out + 1 {account}",
        f"update ops.gold_accounting set row_count = row_count + 1, left_out = left_out - 1 {account}",
    ):
        lower = judged(world, layers=("gold",), at_rest=True)
    with changed_ops(
        world,
        "update ops.gold_accounting set table_name = 'gold.other' where product_id = 'ETH-USD'",
        "update ops.gold_accounting set table_name = 'gold.trade_features' where product_id = 'ETH-USD'",
    ):
        gone = judged(world, layers=("gold",), at_rest=True)
    assert found(lower) == [("gold", "ops.gold_accounting", "BTC-USD", "differing")]
    assert "row_count: expected " in lower.problems[0].examples[0]
    assert found(gone) == [("gold", "ops.gold_accounting", "ETH-USD", "missing")]


def test_features_of_an_older_version_are_called_that_and_no_row_of_them_wrong(world: World) -> None:
    name, before = "gold.trade_features", world.snapshot("gold.trade_features")
    covered = {
        "silver_snapshot": str(world.snapshot("silver.trades")),
        "beside_snapshot": str(world.snapshot("silver.quotes")),
        "complete_through": world.now.isoformat(),
        "hours": "[]",
    }
    verify_world_stores.append(world, TRADE_FEATURES, [], **covered)
    try:
        report = judged(world, layers=("gold",), at_rest=True)
    finally:
        world.roll_back(name, before)
    assert found(report) == [("gold", name, "all", "older version")]


def test_an_open_hole_whose_ids_are_all_there_is_a_stale_hole(world: World) -> None:
    hole = "product_id = 'BTC-USD' and first_missing_id = 1301"
    with changed_ops(
        world,
        f"update ops.trade_gap set status = 'open' where {hole}",
        f"update ops.trade_gap set status = 'healed' where {hole}",
    ):
        report = judged(world, layers=("silver",))
    assert found(report) == [("silver", "ops.trade_gap", "BTC-USD", "stale hole")]
    assert "1301 to 1303: marked open, 3 of 3 ids are in silver" in report.problems[0].examples[0]


def test_a_hole_given_up_whose_ids_are_there_is_named(world: World) -> None:
    hole = "product_id = 'BTC-USD' and first_missing_id = 1301"
    with changed_ops(
        world,
        f"update ops.trade_gap set status = 'unrecoverable', attempts = 99, detail = 'x' where {hole}",
        f"update ops.trade_gap set status = 'healed', attempts = 1, detail = null where {hole}",
    ):
        report = judged(world, layers=("silver",))
    assert found(report) == [("silver", "ops.trade_gap", "BTC-USD", "stale hole")]
    assert "1301 to 1303: marked unrecoverable, 3 of 3 ids are in silver" in report.problems[0].examples[0]


def test_a_healed_hole_whose_ids_are_missing_is_named_and_its_ids_are_missing(world: World) -> None:
    hole = "product_id = 'BTC-USD' and first_missing_id = 1201"
    with changed_ops(
        world,
        f"update ops.trade_gap set status = 'healed', healed_at = now() - interval '15 minutes' where {hole}",
        f"update ops.trade_gap set status = 'open', healed_at = null where {hole}",
    ):
        report = judged(world, layers=("silver",))
    assert found(report) == [
        ("bronze", "bronze.trades_raw", "BTC-USD", "missing"),
        ("silver", "ops.trade_gap", "BTC-USD", "false heal"),
    ]
    assert report.problems[0].count == len(verify_world.LOST)
    assert report.problems[0].examples[0] == "coinbase_exchange BTC-USD 1201"


def test_a_layer_that_was_never_filled_is_named_and_nothing_else_is_blamed(world: World) -> None:
    """A stack that has just come up: what the layers after it lack would look like a hundred faults."""
    with changed_ops(
        world,
        "update ops.layer_mark set table_name = 'later' where table_name = 'silver.trades'",
        "update ops.layer_mark set table_name = 'silver.trades' where table_name = 'later'",
    ):
        report = judged(world)
    assert found(report) == [("cut", "silver.trades", "all", "no complete_through")]
    assert report.comparisons == []
    assert [note for note in report.notes if note.startswith("nothing was judged: silver.trades has never been filled")]


def test_a_cut_older_than_ten_minutes_is_not_clean_and_names_the_layer(world: World) -> None:
    mark = "where table_name = 'gold.bars'"
    with changed_ops(
        world,
        f"update ops.layer_mark set complete_through = complete_through - interval '2 hours' {mark}",
        f"update ops.layer_mark set complete_through = complete_through + interval '2 hours' {mark}",
    ):
        report = judged(world)
        at_rest = judged(world, at_rest=True)
    assert ("cut", "gold.bars", "all", "too old") in found(report)
    assert at_rest.cut is None
    assert at_rest.clean


def test_an_account_that_does_not_balance_is_named(world: World) -> None:
    account = "where table_name = 'silver.trades'"
    with changed_ops(
        world,
        f"update ops.silver_accounting set messages = messages + 1, duplicate = 1 {account}",
        f"update ops.silver_accounting set messages = messages - 1, duplicate = 0 {account}",
    ):
        report = judged(world, layers=("silver",))
    assert found(report) == [("silver", "silver.trades", "ops.silver_accounting", "accounting")]
    assert report.problems[0].count == 3  # messages, items, and the watermark they do not reach


def test_zero_compared_is_a_fault_unless_the_source_is_stopped_by_hand(
    world: World, embedded: Settings, lake: SparkSession
) -> None:
    empty = embedded.model_copy(update={"dataset": "verify_nothing"})
    postgres.bootstrap(empty)
    kafka.create_topics(empty)
    schema.apply(empty)
    apply_contracts(lake, empty)
    marks = "insert into ops.layer_mark (table_name, complete_through, updated_at) values (%s, now(), now())"
    stopped = "insert into ops.service_desired values (%s, 'stopped', 'a person', now())"
    with psycopg.connect(empty.dsn(), autocommit=True) as connection:
        for topic in ("trades", "ticker", "prices"):
            connection.execute(marks, (f"bronze.{topic}_raw",))
        before = verify.run(empty, layers=("bronze",), output=lambda line: None)
        for source in empty.active_sources:
            connection.execute(stopped, (source.service,))
        after = verify.run(empty, layers=("bronze",), output=lambda line: None)
        connection.execute("truncate ops.layer_mark, ops.service_desired")
    assert found(before) == [
        ("bronze", f"bronze.{topic}_raw", "all", "nothing compared") for topic in ("trades", "ticker", "prices")
    ]
    assert after.clean
    assert (
        "bronze bronze.trades_raw: nothing compared, since producer-coinbase and producer-binance are stopped by hand"
        in after.notes
    )
    name = f"{empty.topic_prefix}crypto.candles.raw"
    assert f"bronze bronze.candles_raw: nothing compared, since topic {name} is empty" in before.notes


@pytest.mark.parametrize(
    ("table", "change", "kind"),
    [("silver.trades", "float_born = null", "differing"), ("gold.bars", "has_gap = false", "differing")],
)
def test_a_polled_trade_that_passes_for_exact_and_a_bar_that_passes_for_whole_are_named(
    world: World, table: str, change: str, kind: str
) -> None:
    hour = next(row["open_ts"] for row in world.rows["gold.bars"] if row["venue"] == "ccxt_kraken")
    row = "trade_id = 7031" if table == "silver.trades" else f"interval = '1m' and open_ts = timestamp '{hour}'"
    layer = table.split(".")[0]
    target = Target(layer, table, f"venue = 'ccxt_kraken' and {row}", change, "SOL-USD", "")
    with changed_lake(world, target, kind):
        layers = ("bronze", layer) if layer == "silver" else (layer,)
        report = judged(world, layers=layers, at_rest=True)
    assert [(one.table, one.product, one.kind) for one in report.problems] == [(table, "SOL-USD", kind)]
    assert [one.count for one in report.problems] == [1]
