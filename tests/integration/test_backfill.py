"""History is brought through Kafka: every trade and candle of an interval, whatever kills the process in between."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from marketflow.ingest.backfill import backfill
from marketflow.ingest.backfill_wish import Wish
from marketflow.settings import Settings, load
from marketflow.warehouse import backfills
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock
from tests.integration.heal_stage import assert_as_in_truth, traded
from tests.integration.producer_stage import Market, Process, Stored, environment, market, running, stored, until

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COINBASE, ADVANCED, BINANCE = "coinbase_exchange", "coinbase_advanced", "binance"
PRODUCT = {COINBASE: "BTC-USD", ADVANCED: "BTC-USD", BINANCE: "BTC-USDT", "cryptocompare": "BTC-USD"}
TRADES = 14_000


@pytest.fixture(scope="module")
def made(embedded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market that nobody listens to."""
    folder = tmp_path_factory.mktemp("market") / "market"
    with market(embedded, folder, "BTC-USD,BTC-USDT", "--rate", "450") as running_market:
        for product in ("BTC-USD", "BTC-USDT"):
            traded(replace(running_market, product=product), TRADES)
        yield running_market


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def wish(venue: str, start_us: int, end_us: int, what: str = "trades") -> Wish:
    return Wish(venue, PRODUCT[venue], what, moment(start_us), moment(end_us))


def interval(made: Market, venue: str, first: int, last: int) -> tuple[Wish, dict[int, dict[str, Any]]]:
    """A wish that begins with the market's trade number `first` and ends before number `last`; its trades."""
    truth = replace(made, product=PRODUCT[venue]).truth()
    ids = sorted(truth)
    asked = wish(venue, truth[ids[first]]["event_us"], truth[ids[last]]["event_us"])
    start_us, end_us = (round((at - EPOCH) / timedelta(microseconds=1)) for at in (asked.start, asked.end))
    return asked, {each: fact for each, fact in truth.items() if start_us <= fact["event_us"] < end_us}


@contextmanager
def command(settings: Settings, made: Market, asked: Wish, *more: str) -> Iterator[Process]:
    """`marketflow backfill` as the process it is."""
    env = environment(settings, **made.ports, products=made.product)
    arguments = ["--venue", asked.venue, "--product", asked.product_id]
    arguments += ["--start", asked.start.isoformat(), "--end", asked.end.isoformat()]
    arguments += [] if asked.interval is None else ["--candles", asked.interval]
    log = made.folder / f"backfill-{time.monotonic_ns()}"
    with running("marketflow.cli", "backfill", *arguments, *more, log=log, env=env) as process:
        yield process


def done(settings: Settings, made: Market, asked: Wish, *more: str) -> tuple[int, str]:
    with command(settings, made, asked, *more) as process:
        status = process.child.wait(120)
        return status, process.output


def state(settings: Settings, asked: Wish) -> backfills.State:
    with connect(settings) as connection:
        return backfills.read(connection, asked.key)


def pages(settings: Settings, asked: Wish) -> list[Stored]:
    topic = "sim.crypto.trades.raw" if asked.interval is None else "sim.crypto.candles.raw"
    found = stored(settings, topic, f"{asked.venue}|{asked.product_id}")
    assert all(record.headers["origin"] == "backfill" for record in found)
    return found


def items(record: Stored) -> list[dict[str, Any]]:
    if record.headers["http_status"] != "200":
        return []
    body = json.loads(record.value)
    return list(body["trades"] if isinstance(body, dict) else body)


def ids_of(records: list[Stored]) -> list[int]:
    return [int(one["id"] if "id" in one else one["trade_id"]) for record in records for one in items(record)]


@pytest.mark.parametrize("venue", [COINBASE, BINANCE, ADVANCED])
def test_a_killed_backfill_goes_on_and_brings_every_trade_of_the_interval(
    embedded: Settings, made: Market, venue: str
) -> None:
    asked, truth = interval(made, venue, 1_234, 11_876)
    earlier = len(pages(embedded, asked))
    with command(embedded, made, asked) as process:
        until(lambda: state(embedded, asked).pages >= 3 or process.child.poll() is not None, "three pages")
        process.kill()
        assert process.child.returncode == -9, process.output
    killed = state(embedded, asked)
    assert killed.status == "running"
    assert killed.cursor is not None
    with connect(embedded) as connection:
        (row,) = [one for one in backfills.listed(connection, "sim") if one["source"] == venue]
    assert row["status"] == "interrupted"
    before = len(pages(embedded, asked))
    assert set(ids_of(pages(embedded, asked)[earlier:])) < truth.keys() | set(ids_of(pages(embedded, asked)))
    assert not truth.keys() <= set(ids_of(pages(embedded, asked)[earlier:])), "killed in the middle"

    status, said = done(embedded, made, asked)
    assert status == 0, said
    assert "goes on from" in said
    after = pages(embedded, asked)
    assert_next_is_at_the_cursor(venue, killed.cursor, after[before].headers["request"])
    count = Counter(ids_of(after[earlier:]))
    assert truth.keys() <= count.keys(), said
    again = [trade_id for trade_id, times in count.items() if times > 1]
    # the page that was under way when it was killed; Advanced Trade's windows share a second, and full ones are halved
    assert venue == ADVANCED or len(again) <= 1_000
    finished = state(embedded, asked)
    assert (finished.status, finished.detail) == ("done", None)
    assert finished.pages >= killed.pages + 3
    assert finished.items <= sum(count.values())
    if venue == COINBASE:
        assert_as_in_truth(
            [one for record in after[earlier:] for one in items(record)], replace(made, product="BTC-USD")
        )

    status, said = done(embedded, made, asked, "--json")
    assert status == 0
    assert "was done already; --again starts over" in said
    assert json.loads(said[said.index("{") :])["pages"] == finished.pages
    assert len(pages(embedded, asked)) == len(after)


def test_what_the_history_lacks_is_told_though_the_process_that_saw_it_was_killed(
    embedded: Settings, made: Market
) -> None:
    asked, _ = interval(made, COINBASE, 3_210, 9_870)
    with connect(embedded, autocommit=True) as connection:
        backfills.begin(connection, asked.key, again=False)
    with command(embedded, made, asked) as process:
        until(lambda: state(embedded, asked).pages >= 2 or process.child.poll() is not None, "two pages")
        process.kill()
    killed = state(embedded, asked)
    with connect(embedded, autocommit=True) as connection:
        backfills.move(
            connection,
            asked.key,
            cursor=killed.cursor,
            reached=killed.reached,
            pages=killed.pages,
            items=killed.items,
            notes=["the history leaves out 7"],
        )
    status, said = done(embedded, made, asked)
    assert status == 0, said
    assert (state(embedded, asked).detail or "").startswith("the history leaves out 7")


def assert_next_is_at_the_cursor(venue: str, cursor: str, request: str) -> None:
    name = {COINBASE: "after", BINANCE: "fromId", ADVANCED: "end"}[venue]
    assert f"{name}={cursor}" in request.partition("?")[2].split("&")


def test_a_plan_writes_nothing_and_a_second_process_at_the_same_interval_is_refused(
    embedded: Settings, made: Market
) -> None:
    asked, truth = interval(made, COINBASE, 500, 4_500)
    earlier = len(pages(embedded, asked))
    status, said = done(embedded, made, asked, "--dry-run")
    assert status == 0, said
    assert f"about {len(truth) // 1_000 + 1:,} calls at least 0.20 s apart" in said or "calls at least 0.20" in said
    assert len(pages(embedded, asked)) == earlier
    assert state(embedded, asked) == backfills.State()
    with table_lock(embedded, asked.key.lock_name):
        status, said = done(embedded, made, asked)
        assert status == 75, said
        other = replace(asked, end=asked.end - timedelta(milliseconds=1))
        assert done(embedded, made, other)[0] == 0
    assert state(embedded, asked) == backfills.State()


def test_a_ban_ends_it_as_failed_and_the_same_goes_on_later_and_again_starts_over(
    embedded: Settings, made: Market
) -> None:
    asked, truth = interval(made, BINANCE, 600, 7_000)
    earlier = len(pages(embedded, asked))
    with command(embedded, made, asked) as process:
        until(lambda: state(embedded, asked).pages >= 1, "a page")
        made.control("faults", {"fault": "http_418", "venue": BINANCE, "retry_after": 30})
        assert process.child.wait(60) == 1, process.output
        assert process.output.splitlines()[-1].startswith("marketflow: binance answered 418 to /api/v3/historical")
    failed = state(embedded, asked)
    assert (failed.status, "418" in (failed.detail or "")) == ("failed", True)
    status, said = done(embedded, made, asked)
    assert status == 0, said
    first = state(embedded, asked)
    assert (first.status, first.detail) == ("done", None)
    brought = ids_of(pages(embedded, asked)[earlier:])
    assert truth.keys() <= set(brought)
    assert len(brought) == len(set(brought)), "a refusal has no trades, and no page came twice"
    status, said = done(embedded, made, asked, "--again")
    assert status == 0, said
    over = state(embedded, asked).pages
    assert over == first.pages
    assert truth.keys() <= set(ids_of(pages(embedded, asked)[-over:]))


def test_the_dag_brings_the_trades_of_the_interval_in_its_form(
    embedded: Settings, made: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Airflow's own loop: the Dag as it is in the project, with what a person filled in."""
    from airflow.dag_processing.dagbag import DagBag

    asked, truth = interval(made, BINANCE, 700, 2_900)
    earlier = len(pages(embedded, asked))
    told = environment(embedded, **made.ports, products=made.product)
    for name in [each for each in os.environ if each.startswith("MARKETFLOW_") and each not in told]:
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    airflow_home.fresh_database()
    dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["backfill_history"]
    dag.get_task("bring").retries = 0  # a test does not wait for what is tried again
    form = {"venue": BINANCE, "product": PRODUCT[BINANCE]}
    form |= {"start": asked.start.isoformat(), "end": asked.end.isoformat()}

    assert dag.test(run_conf=form).state == "success"

    brought = ids_of(pages(embedded, asked)[earlier:])
    assert truth.keys() <= set(brought)
    assert len(brought) == len(set(brought))
    finished = state(embedded, asked)
    assert (finished.status, finished.items) == ("done", len(brought))

    # one that starts over, and a later try of a run that has started over
    assert dag.test(run_conf=form | {"again": True}).state == "success"
    over = state(embedded, asked)
    assert (over.status, over.pages) == ("done", finished.pages)
    assert truth.keys() <= set(ids_of(pages(embedded, asked)[-over.pages :]))
    assert over.moved_at is not None
    sent = len(pages(embedded, asked))
    for begun in (over.moved_at - timedelta(seconds=1), over.moved_at):
        assert backfill(load(), asked, again=True, begun=begun).status == "done"
        assert len(pages(embedded, asked)) == sent, "it went on where it was, which is at the end"


def test_a_page_that_lies_is_asked_for_again_and_nothing_is_missing(embedded: Settings, made: Market) -> None:
    asked, truth = interval(made, COINBASE, 2_000, 9_000)
    earlier = len(pages(embedded, asked))
    with command(embedded, made, asked) as process:
        until(lambda: state(embedded, asked).pages >= 1, "a page")
        for fault in ("truncated", "http_5xx"):
            made.control("faults", {"fault": fault, "venue": COINBASE, "replace": fault == "truncated"})
        assert process.child.wait(120) == 0, process.output
    assert truth.keys() <= {
        each
        for record in pages(embedded, asked)[earlier:]
        if record.headers["http_status"] == "200" and record.value.endswith(b"]")
        for each in ids_of([record])
    }


@pytest.mark.parametrize("venue", [COINBASE, ADVANCED, BINANCE, "cryptocompare"])
def test_candles_are_a_fold_of_the_markets_trades(embedded: Settings, made: Market, venue: str) -> None:
    book = replace(made, product=PRODUCT[venue])
    first_us = min(fact["event_us"] for fact in book.truth().values())
    start_us = (first_us // 60_000_000 + 1) * 60_000_000
    until_past(start_us + 60_000_000)
    asked = wish(venue, start_us - 1, start_us + 60_000_000, "candles:1m")
    status, said = done(embedded, made, asked)
    assert status == 0, said
    (page,) = pages(embedded, asked)
    assert page.headers["interval"] == "1m"
    inside = [f for _, f in sorted(book.truth().items()) if start_us <= f["event_us"] < start_us + 60_000_000]
    prices = [Decimal(fact["price"]) for fact in inside]
    volume = sum(Decimal(fact["size"]) for fact in inside)
    told = {at: figures for at, figures in candles(venue, page.value) if at == start_us}
    assert told[start_us][:4] == (prices[0], max(prices), min(prices), prices[-1])
    assert abs(told[start_us][4] - volume) < Decimal("1e-6")
    assert state(embedded, asked).status == "done"


def until_past(us: int) -> None:
    """A minute of the market must be over, and its trades told."""
    limit = time.monotonic() + 150
    while time.time() * 1e6 < us + 2_000_000 and time.monotonic() < limit:
        time.sleep(0.5)


def candles(venue: str, value: bytes) -> Iterator[tuple[int, tuple[Decimal, ...]]]:
    """Opening time in µs; open, high, low, close, volume."""
    body = json.loads(value, parse_float=Decimal, parse_int=Decimal)
    if venue == "cryptocompare":
        for one in body["Data"]["Data"]:
            names = ("open", "high", "low", "close", "volumefrom")
            yield int(one["time"]) * 1_000_000, tuple(Decimal(one[name]) for name in names)
        return
    if venue == ADVANCED:
        for one in body["candles"]:
            names = ("open", "high", "low", "close", "volume")
            yield int(one["start"]) * 1_000_000, tuple(Decimal(one[name]) for name in names)
        return
    for row in body:
        if venue == BINANCE:
            yield int(row[0]) * 1_000, tuple(Decimal(row[place]) for place in (1, 2, 3, 4, 5))
        else:
            yield int(row[0]) * 1_000_000, tuple(row[place] for place in (3, 2, 1, 4, 5))


def test_what_is_wrong_is_said_in_one_line(embedded: Settings, made: Market, tmp_path: Path) -> None:
    env = environment(embedded, **made.ports, products=made.product)
    with running("marketflow.cli", "backfill", "--venue", COINBASE, log=tmp_path / "log", env=env) as process:
        assert process.child.wait(60) == 2
        assert process.output == (
            "marketflow: a backfill needs --product, --start, --end too; `marketflow backfill --help`\n"
        )
    with running("marketflow.cli", "backfill", "--list", "--json", log=tmp_path / "list", env=env) as process:
        assert process.child.wait(60) == 0
        assert isinstance(json.loads(process.output), list)
