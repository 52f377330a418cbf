"""The judge's SQL of trade features against the kernel and the oracle, and what it says of rows that are wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import duckdb
import polars as pl
import pytest

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.kernel import trade_features
from marketflow.verify import features
from marketflow.verify.batches import HOUR_US, Findings, batches
from marketflow.verify.case import Case
from marketflow.verify.compare import compare
from marketflow.verify.features_oracle import FORMULAS, Oracle
from marketflow.verify.gold import mark_of
from marketflow.verify.postgres import FEATURE_TYPES
from marketflow.verify.report import Comparison, Report
from marketflow.verify.sources import LakeTable, Snapshot, Workspace, statement
from tests.unit.features.trade_tapes import MARKETS, START_US, Tape, made

LENGTH = 620
KEPT = LENGTH - 500


class Memory(Workspace):
    """A workspace without a lake."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()


def expected(tape: Tape) -> Memory:
    """`expected_features` of a whole tape, as the judge makes it of silver's tables."""
    space = Memory()
    trades, quotes = tape.trade_frame, tape.quote_frame
    space.connection.register("trades", trades.to_arrow())
    space.connection.register("quotes", quotes.to_arrow())
    space.table(
        "feature_tape",
        "select venue, product_id, trade_id, price, size, taker_side, epoch_us(event_ts) as event_ts, sequence, "
        "row_number() over (order by trade_id) - 1 as place, count(*) over () as total from trades",
    )
    space.table("feature_book", "select * exclude (event_ts), epoch_us(event_ts) as quote_ts from quotes")
    for table, name in (("feature_quotes", "trade_quotes"), ("expected_features", "trade_features")):
        space.table(table, statement(name).replace("$start", "0").replace("$end", str(2 * START_US)))
    return space


def stored(space: Memory, rows: pl.DataFrame) -> None:
    space.connection.register("kernel", rows.to_arrow())
    listed = ", ".join("epoch_us(event_ts) as event_ts" if name == "event_ts" else name for name in features.COLUMNS)
    space.table("stored_features", f"select {listed} from kernel")


def kernel(tape: Tape) -> pl.DataFrame:
    return trade_features(tape.trade_frame, tape.quote_frame).filter(pl.col("history") >= 500)


@pytest.mark.parametrize("market", sorted(MARKETS))
def test_sql_kernel_and_oracle_say_the_same_of_every_row_of_every_market(market: str) -> None:
    tape = made(market, 5, LENGTH)
    space, report = expected(tape), Report("sim")
    rows = kernel(tape)
    stored(space, rows)
    compare(space, report, features.BY_SQL, "expected_features", "stored_features")
    assert report.problems == []
    assert [one.compared for one in report.comparisons] == [KEPT]
    oracle = Oracle(tape.trades, tape.quotes)
    names = [name for name in (*features.BY_SQL.exact, *features.BY_SQL.approximate) if name in FORMULAS]
    told = pl.DataFrame(space.connection.execute("from expected_features").arrow()).sort("trade_id")
    for place in (500, 547, LENGTH - 50, LENGTH - 1):
        row = told.row(place - 500, named=True)
        judged = {name: (row[name], oracle.value(name, place)) for name in names}
        off = {
            name: pair
            for name, pair in judged.items()
            if pair[0] != pair[1] and not oracle.agrees(name, place, pair[0]) and name not in features._SLACK
        }
        assert off == {}


def test_every_column_of_the_contract_is_judged() -> None:
    assert set(features.COLUMNS) == {column.name for column in TRADE_FEATURES.columns}
    assert set(features._ORACLES_ALONE) | set(features._EXACT) < set(FORMULAS) == set(CATALOGUE)
    by_sql = {*features.BY_SQL.exact, *features.BY_SQL.approximate}
    assert by_sql | set(features._ORACLES_ALONE) | set(features.KEY) == set(features.COLUMNS)
    assert len(by_sql & set(FORMULAS)) == 105
    kinds = {"string": "VARCHAR", "boolean": "BOOLEAN", "int": "INTEGER", "bigint": "BIGINT", "double": "DOUBLE"}
    kinds |= {"timestamp": "BIGINT", "decimal(38,18)": "DECIMAL(38,18)"}
    told = {column.name: kinds[column.type.value] for column in TRADE_FEATURES.columns}
    assert told == {name: FEATURE_TYPES.get(name, "VARCHAR") for name in features.COLUMNS}


def test_one_wrong_value_in_every_column_that_sql_tells_is_named() -> None:
    """A row for each column; those of the targets first, since the last rows have none."""
    tape = made("bitcoin", 5, LENGTH)
    space, report = expected(tape), Report("sim")
    rows = kernel(tape)
    names = [*reversed(features.BY_SQL.approximate), *features.BY_SQL.exact]
    places = dict(zip(names, (place for place in range(KEPT) if place % 12), strict=False))
    assert names == list(places)
    wrong = dict(zip(names, rows["trade_id"].gather(list(places.values())), strict=True))
    altered = rows.with_columns(
        pl.when(pl.col("trade_id") == wrong[name]).then(other(name, rows.schema[name])).otherwise(name).alias(name)
        for name in names
    )
    stored(space, altered)
    faults = compare(space, report, features.BY_SQL, "expected_features", "stored_features")
    told = dict(space.rows(f"select trade_id, differences from {faults}"))
    assert set(told) == set(wrong.values())
    off = {name: told[trade_id] for name, trade_id in wrong.items() if not told[trade_id].startswith(f"{name}: ")}
    assert off == {}
    assert [(one.product, one.kind, one.count) for one in report.problems] == [("BTC-USD", "differing", len(names))]


def other(name: str, kind: pl.DataType) -> pl.Expr:
    """Another value of the column, also where it is null."""
    value = pl.col(name)
    if kind == pl.Boolean:
        return ~value.fill_null(True)
    if kind == pl.String:
        return value.fill_null("") + "x"
    if kind.is_temporal():
        return value + pl.duration(microseconds=1)
    if kind.is_decimal():
        return value + pl.lit("0.00000001").cast(kind)
    return value.fill_null(0) + (1 if kind.is_integer() else 1e-4)


def commit(snapshot_id: int, at_us: int, trades: int, quotes: int, *hours: int) -> Snapshot:
    """Of gold.trade_features."""
    told = [datetime.fromtimestamp(hour * 3600, UTC).isoformat() for hour in hours]
    covered = {"silver_snapshot": str(trades), "beside_snapshot": str(quotes)}
    return Snapshot(snapshot_id, at_us, covered | {"hours": json.dumps(told)})


def test_an_hour_that_a_backfill_wrote_is_judged_by_what_both_tables_of_silver_held_then() -> None:
    silver = {
        "silver.trades": LakeTable("silver.trades", "", (Snapshot(12, 300, {}), Snapshot(11, 100, {}))),
        "silver.quotes": LakeTable("silver.quotes", "", (Snapshot(22, 350, {}), Snapshot(21, 100, {}))),
    }
    moved = commit(2, 200, 11, 21, 5, 6)
    table = LakeTable(features.NAME, "", (commit(3, 320, 11, 21, 6), moved, commit(1, 150, 11, 20, 4)))
    mark = mark_of(table)
    assert mark is not None
    # the commit before moved the mark, by quotes alone: what it wrote is as of the mark
    assert (mark.silver_snapshot, mark.beside_snapshot, mark.replaced_since) == (11, 21, {6 * HOUR_US: 320})
    case = SimpleNamespace(tables=silver)
    covered = features.Seen(11, 21)
    seen = {hour: features._seen(cast(Case, case), mark, covered, hour * HOUR_US) for hour in (4, 5, 6)}
    assert seen == {4: covered, 5: covered, 6: features.Seen(12, 21)}


def test_batches_are_whole_hours_that_follow_each_other_and_none_is_larger_than_asked_but_a_large_hour() -> None:
    hours = {HOUR_US * hour: rows for hour, rows in ((1, 5), (2, 5), (3, 30), (5, 1), (9, 9), (10, 1))}
    spans = [(start // HOUR_US, end // HOUR_US) for start, end in batches(hours, 10)]
    assert spans == [(1, 3), (3, 5), (5, 10), (10, 11)]
    assert batches({}) == []


def test_findings_of_batches_are_one_comparison_with_the_first_examples() -> None:
    found, report = Findings("gold", "gold.trade_features"), Report("sim")
    part = Report("sim", comparisons=[Comparison("gold", "gold.trade_features", "P", 1)])
    for _ in range(3):
        found.add(part)
    found.differing("P", "k 7")
    found.differing("P", "k 8")
    found.report(report)
    assert [(one.product, one.compared, one.differing) for one in report.comparisons] == [("P", 3, 2)]
    assert [(one.kind, one.count, one.examples) for one in report.problems] == [("differing", 2, ("k 7", "k 8"))]
