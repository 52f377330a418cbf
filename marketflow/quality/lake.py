"""Checks that need the lake: SQL of include/sql/lake/quality by DuckDB, and what `marketflow verify` compares.

The judge is asked once, and its findings become one result a table of checks: it already compares counts and values
from Kafka to PostgreSQL by code of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg
from confluent_kafka import KafkaException

from marketflow import verify
from marketflow.errors import MarketflowError
from marketflow.lake import readers
from marketflow.paths import SQL_FOLDER
from marketflow.settings import Settings
from marketflow.verify import Problem, Report
from marketflow.warehouse.checks import SAMPLE_ROWS, Check, Result, read_header, unasked, unjudged

FOLDER = SQL_FOLDER / "lake" / "quality"
JUDGED_LAYERS = ("bronze", "silver", "gold", "postgres")


def _judged(name: str, owner: str, subject: str, purpose: str, remedy: str) -> Check:
    meaning = "is a fact that is missing, doubled, invented or other than the layer before it says"
    return Check(name, "hard", owner, subject, False, purpose, meaning, remedy)


_RESTATE = "`marketflow verify --hours 2` names the keys; then Dag {} with the hour of the first"
VERIFIED: dict[Check, Callable[[str, str], bool]] = {
    _judged(
        *("kafka_is_in_bronze", "market_stream", "bronze.trades_raw", "every record of Kafka is in bronze once."),
        "`marketflow verify --layers bronze`; a missing range that Kafka still holds: Dag stream_reset",
    ): lambda layer, _: layer == "bronze",
    _judged(
        *("bronze_is_in_silver", "silver", "silver.trades", "every item of bronze is in silver once, or rejected."),
        _RESTATE.format("silver"),
    ): lambda layer, _: layer == "silver",
    _judged(
        *("bars_are_of_trades", "gold_bars", "gold.bars", "bars and days are those of silver's trades."),
        _RESTATE.format("gold_bars"),
    ): lambda layer, table: layer == "gold" and table in ("gold.bars", "gold.product_day"),
    _judged(
        *("movers_are_of_prices", "gold_price_metrics", "gold.price_metrics"),
        "metrics and movers are those of silver's prices.",
        _RESTATE.format("gold_price_metrics"),
    ): lambda layer, table: layer == "gold" and table in ("gold.price_metrics", "gold.top_movers"),
    _judged(
        *("features_are_of_trades", "gold_trade_features", "gold.trade_features"),
        "features are those of silver's trades and quotes.",
        _RESTATE.format("gold_trade_features"),
    ): lambda layer, table: layer == "gold" and table in ("gold.trade_features", "ops.gold_accounting"),
    _judged(
        *("gold_is_in_postgres", "publish", "gold.bars", "PostgreSQL's rows are the lake's, row for row."),
        "`marketflow publish TABLE`; where it stays, somebody changed PostgreSQL's rows by hand",
    ): lambda layer, _: layer == "postgres",
}


def sql_checks() -> tuple[Check, ...]:
    """The checks of include/sql/lake/quality."""
    return tuple(check for path in sorted(FOLDER.glob("*.sql")) for check in read_header(path))


def run_sql(settings: Settings, checks: Sequence[Check], since: datetime) -> list[Result]:
    """Ask these on the lake of what happened `since` or later; a lake that cannot be read leaves all unjudged."""
    if not checks:
        return []
    import duckdb

    results: list[Result] = []
    try:
        with readers.duckdb(settings) as connection:
            for check in checks:
                results.append(_ask(connection, check, since))
    except (duckdb.Error, MarketflowError, OSError) as error:
        results += [unasked(check, str(error)) for check in checks[len(results) :]]
    return results


def _ask(connection: Any, check: Check, since: datetime) -> Result:
    started, now = time.monotonic(), datetime.now(UTC)
    cursor = connection.execute(check.text, {"since": since})
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchmany(SAMPLE_ROWS)
    count = len(rows)
    while more := cursor.fetchmany(10_000):
        count += len(more)
    sample = tuple(dict(zip(names, row, strict=True)) for row in rows)
    return _result(check, now, count, sample, time.monotonic() - started)


def run_verify(settings: Settings, checks: Sequence[Check], hours: float) -> list[Result]:
    """Ask the judge of what arrived in the last `hours`, and divide what it found."""
    if not checks:
        return []
    import duckdb

    started = time.monotonic()
    try:
        report = verify.run(
            settings,
            hours=hours,
            at_rest=settings.dataset == "replay",
            layers=JUDGED_LAYERS,
            output=lambda line: None,
        )
    except (duckdb.Error, psycopg.OperationalError, KafkaException, MarketflowError, OSError) as error:
        return [unasked(check, str(error)) for check in checks]
    seconds = (time.monotonic() - started) / len(checks)
    return [_divided(check, report, seconds) for check in checks]


def _divided(check: Check, report: Report, seconds: float) -> Result:
    mine = VERIFIED[check]
    problems: list[Problem] = [one for one in report.problems if mine(one.layer, one.table)]
    compared = sum(one.compared for one in report.comparisons if mine(one.layer, one.table))
    # a dataset in which nothing happens lately is not broken for that; a layer that is late is another alert
    problems = [one for one in problems if one.kind != "nothing compared"]
    if not problems and not compared:
        return unjudged(check, "; ".join(report.notes) or "nothing was compared: nothing arrived in that time")
    sample = tuple(
        {"table": one.table, "of": one.product, "kind": one.kind, "count": one.count, "first": list(one.examples)}
        for one in problems[:SAMPLE_ROWS]
    )
    found = _result(check, datetime.now(UTC), sum(one.count for one in problems), sample, seconds, bool(problems))
    cut = f", cut {report.cut.isoformat()}" if report.cut else ""
    return Result(**{**_fields(found), "detail": f"{compared} compared{cut}; {found.detail}"})


def _result(
    check: Check,
    now: datetime,
    count: int,
    sample: tuple[dict[str, Any], ...],
    seconds: float,
    failed: bool | None = None,
) -> Result:
    bad = count > 0 if failed is None else failed
    outcome: Literal["passed", "failed"] = "failed" if bad else "passed"
    detail = f"{count} failing {'row' if count == 1 else 'rows'}" if bad else "no failing row"
    if sample:
        detail += f"; the first: {', '.join(f'{name} {value}' for name, value in sample[0].items())}"[:500]
    return Result(check, now, outcome, detail, count, sample, seconds)


def _fields(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in Result.__slots__}
