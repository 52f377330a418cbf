"""Gold from silver: which hours are dirty, and their atomic replacement.

Gold is a pure function of silver: an hour written twice is the same hour. What is dirty is computed from silver's
snapshot summaries and gold's own, never remembered elsewhere. Every commit of a gold table carries
`marketflow.silver_snapshot` (the newest silver snapshot of which every reached hour is written), `marketflow.hours`
(what it replaced) and `marketflow.complete_through`; where a second silver table is read beside the first one,
`marketflow.beside_snapshot` too, and where hours are accounted for `marketflow.accounting`.
docs/decisions/0004-gold-marks.md says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import BARS, PRICE_METRICS, PRODUCT_DAY, TOP_MOVERS, TRADE_FEATURES
from marketflow.contracts.silver import ASSET_PRICES, QUOTES, TRADES
from marketflow.lake import (
    gold_accounts,
    gold_bars,
    gold_days,
    gold_features,
    gold_files,
    gold_hours,
    gold_marks,
    gold_prices,
    gold_write,
    watermark,
)
from marketflow.lake.gold_marks import Changes, Mark
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import added_records, java_table, walk
from marketflow.settings import Settings
from marketflow.warehouse import freshness, gold_accounting
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

Reached = Callable[[SparkSession, Settings, str, DataFrame, Changes], set[datetime]]
Rows = Callable[[SparkSession, Settings, str, DataFrame, list[datetime], datetime | None], DataFrame]
# as Rows, with the snapshots of the two silver tables in place of complete_through
Files = Callable[
    [SparkSession, Settings, str, DataFrame, tuple[int | None, int | None], list[datetime]],
    list[gold_features.Written],
]
DayRowsOf = Callable[..., gold_write.DayRows]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one gold table comes from silver. `completes`: its rows say whether they are complete.

    Its rows are a DataFrame that Spark writes, or `files` that the workers have written, from `silver` and a second
    silver table `beside` it, of which `beside_reached` says what its changes reach. `day_rows` come from the rows of
    hours. A higher `version` than the stored rows were written with makes every hour dirty once. A table of days reads
    gold.bars as its `silver`; its hours are midnights.
    """

    table: Table
    silver: Table
    reached: Reached
    rows: Rows | None = None
    completes: bool = False
    files: Files | None = None
    beside: Table | None = None
    beside_reached: Callable[[Changes], set[datetime]] | None = None
    day_rows: DayRowsOf | None = None
    version: int = 1
    floor: Callable[[datetime], datetime] = gold_hours.floor


RECIPES = {
    recipe.table.qualified: recipe
    for recipe in (
        # 2: bars of 15m and 1d, and the ids of a bar's first and last trade
        Recipe(
            *(BARS, TRADES, gold_bars.reached, gold_bars.rows),
            completes=True,
            day_rows=gold_bars.day_rows,
            version=2,
        ),
        Recipe(PRICE_METRICS, ASSET_PRICES, gold_prices.metrics_reached, gold_prices.metrics_rows, completes=False),
        Recipe(TOP_MOVERS, ASSET_PRICES, gold_prices.movers_reached, gold_prices.movers_rows, completes=False),
        # 2: of quotes of one time the one of the highest sequence is the last
        Recipe(
            TRADE_FEATURES,
            TRADES,
            gold_features.reached,
            files=gold_features.write,
            beside=QUOTES,
            beside_reached=gold_features.reached_by_quotes,
            version=2,
        ),
        Recipe(PRODUCT_DAY, BARS, gold_days.reached, gold_days.rows, floor=gold_hours.day_of),
    )
}
DAILY = (PRODUCT_DAY.qualified,)
"""Tables that have news once a day: the others are brought up to date every few minutes."""


@dataclass(frozen=True, slots=True)
class GoldCommit:
    """What a call wrote. `snapshot_id` is None where there was nothing to write."""

    table: str
    hours: tuple[datetime, ...]
    snapshot_id: int | None
    silver_snapshot: int | None
    complete_through: datetime | None
    rows: int

    def as_dict(self) -> dict[str, object]:
        """For a job's JSON line."""
        return {
            "table": self.table,
            "hours": [hour.isoformat() for hour in self.hours],
            "snapshot_id": self.snapshot_id,
            "silver_snapshot": self.silver_snapshot,
            "complete_through": self.complete_through.isoformat() if self.complete_through else None,
            "rows": self.rows,
        }


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything dirty as of one silver snapshot."""

    mark: Mark
    silver_snapshot: int | None
    hours: frozenset[datetime]
    beside_snapshot: int | None = None


def dirty_hours(spark: SparkSession, settings: Settings, table: Table | str) -> list[datetime]:
    """Hours of a gold table that silver has changed since its mark, or that have become complete since; in order."""
    recipe = _recipe(table)
    return sorted(_plan(spark, settings, recipe, silver_complete_through(settings, recipe)).hours)


def rewrite_dirty(
    spark: SparkSession, settings: Settings, table: Table | str, *, also: Iterable[datetime] = ()
) -> GoldCommit:
    """Rewrite every dirty hour, the open one too, and those in `also`, and move the mark; one commit under the lock.

    Raises:
        BusyError: another process writes this table.
    """
    recipe = _recipe(table)
    with table_lock(settings, recipe.table.qualified):
        _copy_accounts(spark, settings, recipe)
        # read before silver is: what silver holds afterwards is at least as complete as this
        complete_through = silver_complete_through(settings, recipe)
        plan = _plan(spark, settings, recipe, complete_through)
        hours = plan.hours.union(recipe.floor(hour) for hour in also)
        return _replace(spark, settings, recipe, plan, sorted(hours), complete_through, moves=True)


def replace_hours(
    spark: SparkSession,
    settings: Settings,
    table: Table | str,
    hours: Iterable[datetime],
    complete_through: datetime | None,
    backfill: bool = False,
) -> GoldCommit:
    """Replace these whole hours by what silver holds now; one commit under the table's lock.

    The mark moves where `hours` hold everything that is dirty by now, and never in a backfill.

    Raises:
        BusyError: another process writes this table.
    """
    recipe = _recipe(table)
    asked = sorted({recipe.floor(hour) for hour in hours})
    with table_lock(settings, recipe.table.qualified):
        _copy_accounts(spark, settings, recipe)
        # what else is dirty says which days may be folded of the hours that are stored
        plan = _plan(spark, settings, recipe, complete_through, dirty=not backfill or recipe.day_rows is not None)
        moves = not backfill and plan.hours <= set(asked)
        return _replace(spark, settings, recipe, plan, asked, complete_through, moves=moves)


def backfill_hours(
    spark: SparkSession, settings: Settings, table: Table | str, hours: Iterable[datetime]
) -> GoldCommit:
    """Rewrite these hours as silver and its mark are now, and leave gold's mark where it is.

    Raises:
        BusyError: another process writes this table.
    """
    complete_through = silver_complete_through(settings, _recipe(table))
    return replace_hours(spark, settings, table, hours, complete_through, backfill=True)


def silver_complete_through(settings: Settings, recipe: Recipe) -> datetime | None:
    """The processing time through which this recipe's silver table is complete, None where it never was marked."""
    names = [table.qualified for table in (recipe.silver, recipe.beside) if table is not None]
    with connect(settings) as connection:
        marks = [freshness.complete_through(connection, name) for name in names]
    known = [mark for mark in marks if mark is not None]
    return min(known) if len(known) == len(names) else None


def _recipe(table: Table | str) -> Recipe:
    return RECIPES[table if isinstance(table, str) else table.qualified]


def _copy_accounts(spark: SparkSession, settings: Settings, recipe: Recipe) -> None:
    """What a writer before committed and did not live to account for; rows that Spark writes have no accounts."""
    if recipe.files is not None:
        gold_accounts.copy_missing(spark, settings, recipe.table)


def _plan(
    spark: SparkSession, settings: Settings, recipe: Recipe, complete_through: datetime | None, *, dirty: bool = True
) -> _Plan:
    mark = gold_marks.of_gold(walk(java_table(spark, table_name(settings, recipe.table))), recipe.version)
    silver_name = table_name(settings, recipe.silver)
    changes = gold_marks.changes_since(walk(java_table(spark, silver_name)), mark.silver_snapshot)
    hours: set[datetime] = set()
    if dirty and (changes.everything or changes.touched):
        silver = _silver(spark, silver_name, changes.newest)
        hours |= recipe.reached(spark, settings, silver_name, silver, changes)
    if dirty and changes.everything and recipe.table.hour_column:
        # rows may also have gone from silver
        gold_name = table_name(settings, recipe.table)
        hours = hours.union(*gold_write.files_hours(spark, gold_name, recipe.table.hour_column))
    if dirty and recipe.completes and mark.complete_through and complete_through:
        hours |= _completed_between(mark.complete_through, complete_through)
    beside = _beside_changes(spark, settings, recipe, mark)
    if dirty and recipe.beside_reached and not beside.everything:
        hours |= recipe.beside_reached(beside)
    if dirty and beside.everything and not changes.everything:
        silver = _silver(spark, silver_name, changes.newest)
        whole = Changes(changes.newest, everything=True)
        hours |= recipe.reached(spark, settings, silver_name, silver, whole)
    return _Plan(mark, changes.newest, frozenset(hours), beside.newest)


def _beside_changes(spark: SparkSession, settings: Settings, recipe: Recipe, mark: Mark) -> Changes:
    if recipe.beside is None:
        return Changes(None)
    history = walk(java_table(spark, table_name(settings, recipe.beside)))
    return gold_marks.changes_since(history, mark.beside_snapshot)


def _completed_between(previous: datetime, complete_through: datetime) -> set[datetime]:
    """Hours with rows that ended after the one time and by the other: they were written as incomplete."""
    return set(gold_hours.between(previous, complete_through)) if complete_through > previous else set()


def _silver(spark: SparkSession, name: str, snapshot_id: int | None) -> DataFrame:
    """Silver as of one snapshot, so that all reads of a commit see the same rows."""
    return spark.read.option("versionAsOf", snapshot_id).table(name) if snapshot_id else spark.table(name)


def _replace(
    spark: SparkSession,
    settings: Settings,
    recipe: Recipe,
    plan: _Plan,
    hours: list[datetime],
    complete_through: datetime | None,
    *,
    moves: bool,
) -> GoldCommit:
    name = table_name(settings, recipe.table)
    through = _later(plan.mark.complete_through, complete_through)
    mark = Mark(plan.silver_snapshot, through, plan.beside_snapshot) if moves else plan.mark
    properties = _said(recipe, mark, hours)
    # silver moved without a row: remember it, or the covered snapshot would one day leave silver's history
    moved = (mark.silver_snapshot, mark.beside_snapshot) != (plan.mark.silver_snapshot, plan.mark.beside_snapshot)
    done: list[gold_features.Written] = []
    held = False
    if hours:
        silver_name = table_name(settings, recipe.silver)
        silver = _silver(spark, silver_name, plan.silver_snapshot)
        if recipe.rows is not None:
            rows = recipe.rows(spark, settings, silver_name, silver, hours, complete_through)
            _write(spark, recipe, name, rows, hours, properties, stale=plan.hours.difference(hours))
        elif recipe.files is not None:
            snapshots = (plan.silver_snapshot, plan.beside_snapshot)
            done = recipe.files(spark, settings, silver_name, silver, snapshots, hours)
            # more than a summary should hold: until the hours are accounted for they stay dirty
            held = moves and len(done) > gold_accounts.MOST and plan.hours.issuperset(hours)
            said = _said(recipe, plan.mark, hours) if held else properties
            _commit_files(spark, settings, recipe, done, hours, said, with_account=not held)
    elif moved:
        gold_write.mark_only(spark, name, recipe.table, properties)
    snapshot_id, newest_event_at, rows_added = _committed(spark, recipe, name, bool(hours) or moved)
    # hours that hold no trade any more lose their account too
    if recipe.files is not None and hours and snapshot_id is not None:
        with connect(settings) as connection:
            gold_accounting.record(connection, recipe.table, hours, done, snapshot_id)
    if held:
        gold_write.mark_only(spark, name, recipe.table, _said(recipe, mark, []))
    if moves and mark.complete_through:
        with connect(settings) as connection:
            freshness.mark(
                connection,
                recipe.table.qualified,
                mark.complete_through,
                newest_event_at=newest_event_at,
                snapshot_id=snapshot_id,
            )
    return GoldCommit(
        recipe.table.qualified, tuple(hours), snapshot_id, mark.silver_snapshot, mark.complete_through, rows_added
    )


def _said(recipe: Recipe, mark: Mark, hours: list[datetime]) -> dict[str, str]:
    """What a commit of these hours says in its summary, with this mark."""
    said = {"hours": gold_hours.to_json(hours)}
    if recipe.version > 1 and mark.silver_snapshot:
        said["version"] = str(recipe.version)
    if mark.silver_snapshot:
        said["silver_snapshot"] = str(mark.silver_snapshot)
    if mark.complete_through:
        said["complete_through"] = mark.complete_through.isoformat()
    if mark.beside_snapshot:
        said["beside_snapshot"] = str(mark.beside_snapshot)
    return said


def _commit_files(
    spark: SparkSession,
    settings: Settings,
    recipe: Recipe,
    done: list[gold_features.Written],
    hours: list[datetime],
    said: dict[str, str],
    *,
    with_account: bool,
) -> None:
    """Replace the hours by the files that the workers have written, and say what became of the trades."""
    account = {watermark.ACCOUNTING: gold_accounts.to_json(done)} if with_account else {}
    paths = [path for each in done for path in each.paths]
    gold_files.replace(settings, recipe.table, paths, hours, said, account)
    if not paths:  # nothing was added, and perhaps nothing deleted: no commit carries the mark
        gold_write.mark_only(spark, table_name(settings, recipe.table), recipe.table, said | account)


def _write(
    spark: SparkSession,
    recipe: Recipe,
    name: str,
    rows: DataFrame,
    hours: list[datetime],
    properties: dict[str, str],
    *,
    stale: frozenset[datetime],
) -> None:
    """Write the hours, and in the same commit the rows of their days where the recipe has such.

    `stale` are the other hours whose stored rows may not hold what silver holds.
    """
    if recipe.day_rows is None:
        gold_write.replace(spark, name, recipe.table, rows, hours, properties)
        return
    rows = rows.persist()  # read twice, computed once
    try:
        beside = recipe.day_rows(spark, name, rows, hours, stale=stale)
        said = properties | {"days": gold_hours.to_json(beside.days)}
        gold_write.replace(spark, name, recipe.table, rows, hours, said, beside)
    finally:
        rows.unpersist()


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment), default=None)


def _committed(
    spark: SparkSession, recipe: Recipe, name: str, written: bool
) -> tuple[int | None, datetime | None, int]:
    """Snapshot, newest event time and rows added of the commit just made under our lock."""
    if not written:
        return None, None, 0
    newest = f.max(f.unix_micros(f.expr(f"readable_metrics.`{recipe.table.hour_column}`.upper_bound")))
    bound = spark.table(f"{name}.files").agg(newest.alias("newest")).collect()[0].newest
    table = java_table(spark, name)
    moment = gold_hours.moment(bound) if bound is not None else None
    return table.currentSnapshot().snapshotId(), moment, added_records(table)
