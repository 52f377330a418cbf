"""One run: pin every store from the last layer to the first, take the cut, judge layer by layer."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from marketflow.contracts.topics import CANDLES, PRICES, TICKER, TRADES
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.verify import bronze, cut, features, gold, ledger, live, postgres, silver
from marketflow.verify.case import LAYERS, Case
from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable, Warehouse, Workspace, pin, warehouse, workspace

# from the last layer to the first: what is pinned later can only hold more, so nothing downstream looks invented
_PINNED = (
    *(("gold", name) for name in ("product_day", "bars", "price_metrics", "top_movers", "trade_features")),
    *(("silver", name) for name in ("trades", "quotes", "asset_prices", "candles", "rejected")),
    *(("bronze", topic.bronze) for topic in (TRADES, TICKER, PRICES, CANDLES)),
)
_BEFORE = {"silver": ("bronze",), "gold": (), "postgres": (), "live": ("bronze", "silver")}


def run(
    settings: Settings,
    *,
    hours: float | None = None,
    since: datetime | None = None,
    at_rest: bool = False,
    truth_folder: Path | None = None,
    layers: tuple[str, ...] = LAYERS,
    output: Callable[[str], None] = print,
) -> Report:
    """Judge a dataset and return what was found; `report.clean` says whether anything is wrong.

    `since` (aware), or the last `hours` before the cut, narrows what is judged to what arrived from then on. `at_rest`
    is for a dataset that nothing writes any more: the end of the data is the cut. `truth_folder` is where
    trades.ndjson and prices.ndjson lie; by default the simulator's in this home, for dataset sim alone.
    """
    started = time.monotonic()
    unknown = set(layers) - set(LAYERS)
    if unknown:
        raise ConfigurationError(f"unknown layer {', '.join(sorted(unknown))}; known: {', '.join(LAYERS)}")
    chosen = tuple(layer for layer in LAYERS if any(layer in (one, *_BEFORE.get(one, ())) for one in layers))
    report = Report(settings.dataset)
    with workspace(settings) as space, warehouse(space) as database:
        case = _case(settings, space, database, report, output, chosen, at_rest, truth_folder)
        if since is None and hours is not None:
            since = (report.cut or datetime.now(UTC)) - timedelta(hours=hours)
        case.since_us = cut.microseconds(since) if since is not None else None
        output(_headline(case))
        missing = sorted(name for name, mark in report.complete_through.items() if mark is None)
        if at_rest or not missing:
            _judge(case)
        else:
            # what follows from a layer that is not there yet would look like a hundred faults of all the others
            report.notes.append(
                f"nothing was judged: {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} never been "
                "filled. After `make up` Dags advance and publish_* do it within about ten minutes: ask again then, "
                "and `marketflow status` if it stays so"
            )
    report.seconds = time.monotonic() - started
    return report


def _case(
    settings: Settings,
    space: Workspace,
    database: Warehouse,
    report: Report,
    output: Callable[[str], None],
    layers: tuple[str, ...],
    at_rest: bool,
    truth_folder: Path | None,
) -> Case:
    # the database's snapshot begins with the first statement, so before anything of the lake is pinned
    marks = cut.complete_through(database, _marked(layers))
    tables = {f"{layer}.{name}": pin(space, layer, name) for layer, name in _PINNED}
    if "postgres" in layers:
        states = cut.published(database)
        for name in (name for name in gold.SILVER_OF if name not in gold.DAILY):
            through = cut.published_complete_through(tables[name], marks.get(name), states.get(name))
            marks[f"postgres {name}"] = through
    stopped = {
        service: cut.microseconds(set_at)
        for service, set_at in database.rows(
            "select service, set_at from ops.service_desired where desired = 'stopped'"
        )
    }
    if truth_folder is None and settings.dataset == "sim":
        truth_folder = settings.home / "truth"
    case = Case(
        settings=settings,
        space=space,
        warehouse=database,
        report=report,
        output=output,
        layers=layers,
        tables=tables,
        truth_folder=truth_folder,
        cut_us=None,
        since_us=None,
        stopped_us=stopped,
        products=_products(settings, space, tables),
    )
    if at_rest:
        report.complete_through = dict(marks)
        return case
    taken = cut.take(report, _running(case, marks), now=datetime.now(UTC))
    case.cut_us = cut.microseconds(taken) if taken else None
    return case


def _marked(layers: tuple[str, ...]) -> tuple[str, ...]:
    named = tuple(f"{layer}.{name}" for layer, name in reversed(_PINNED) if layer in layers and name != "rejected")
    return tuple(name for name in named if name not in gold.DAILY)


def _running(case: Case, marks: dict[str, datetime | None]) -> dict[str, datetime | None]:
    """All marks, but those that stopped sources, or candles that nobody asked for, have never let come to be."""
    unasked = {name for name in (f"bronze.{CANDLES.bronze}", "silver.candles") if not case.tables[name].snapshots}
    fed = {f"bronze.{topic.bronze}": bronze.KIND_OF[topic.name] for topic in (TRADES, TICKER, PRICES, CANDLES)}
    fed |= {f"silver.{kind}": kind for kind in fed.values()} | dict(gold.SILVER_OF)
    fed |= {f"postgres {name}": fed[name] for name in gold.SILVER_OF}
    return {
        name: mark
        for name, mark in marks.items()
        if mark is not None or not (name in unasked or case.stopped(fed[name]) is not None)
    }


def _products(settings: Settings, space: Workspace, tables: dict[str, LakeTable]) -> tuple[str, ...]:
    """What is collected, and what silver took from captures of other products: the registry is not the judge's."""
    found = set(settings.products)
    for name in ("silver.trades", "silver.quotes"):
        if tables[name].snapshots:
            found |= {row[0] for row in space.rows(f"select distinct product_id from {tables[name].scan()}")}
    return tuple(sorted(found))


def _headline(case: Case) -> str:
    if case.report.cut is None:
        return f"verify {case.settings.dataset}: the end of the data is the cut"
    age = (datetime.now(UTC) - case.report.cut).total_seconds()
    return f"verify {case.settings.dataset}: cut {case.report.cut.isoformat()}, {age:.0f} s ago"


def _judge(case: Case) -> None:
    ledger.load(case)
    if "bronze" in case.layers:
        bronze.check(case)
    if "silver" in case.layers:
        silver.check(case)
        ledger.check(case)
    if "gold" in case.layers:
        gold.check(case)
        features.check(case)
    if "postgres" in case.layers:
        postgres.check(case)
    if "live" in case.layers:
        live.check(case)
