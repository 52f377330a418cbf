"""The feed against a simulator that misbehaves: Kafka and the gap ledger together always equal the truth."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from marketflow.settings import Settings
from marketflow.stack import hanging, sources
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.integration.producer_stage import Market, Process, ids, market, producer, stored, until

VENUE = "coinbase_exchange"
Row = tuple[int, int, str, str]


def ledger_of(settings: Settings, product: str) -> list[Row]:
    with connect(settings) as connection:
        return connection.execute(
            "select first_missing_id, last_missing_id, cause, status from ops.trade_gap "
            "where venue = %s and product_id = %s order by 1",
            (VENUE, product),
        ).fetchall()


def arrived(settings: Settings, product: str) -> list[int]:
    return ids(stored(settings, "sim.crypto.trades.raw", f"{VENUE}|{product}"))


def missing(settings: Settings, made: Market) -> set[int]:
    """Ids the market made between the first and the last that Kafka has, and that Kafka lacks."""
    here = set(arrived(settings, made.product))
    return {trade_id for trade_id in made.truth() if min(here) < trade_id < max(here)} - here


def healed_by_rest(settings: Settings, product: str) -> set[int]:
    """Ids on the pages that the feed asked for."""
    records = stored(settings, "sim.crypto.trades.raw", f"{VENUE}|{product}")
    pages = [json.loads(each.value) for each in records if each.headers["origin"] == "heal"]
    return {item["trade_id"] for page in pages for item in page}


def healed(settings: Settings, product: str) -> None:
    """Wait until the ledger has holes and none of them is open."""
    until(lambda: (rows := ledger_of(settings, product)) and not in_holes(rows), "a healed ledger")


def in_holes(rows: list[Row], status: str = "open") -> set[int]:
    return {each for first, last, _, state in rows if state == status for each in range(first, last + 1)}


def heard(process: Process) -> None:
    until(lambda: process.events("connected") or process.child.poll() is not None, "a connection")
    assert process.child.poll() is None, process.output


def grown(settings: Settings, product: str, by: int = 30) -> None:
    """Wait until that many more trades have arrived."""
    before = len(arrived(settings, product))
    until(lambda: len(arrived(settings, product)) >= before + by, f"{by} more trades")


def test_every_trade_reaches_kafka_as_it_was_sent_and_sigterm_loses_none(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "SOL-USD", "--rate", "50") as made,
        producer(embedded, made, VENUE, "producer") as feed,
    ):
        heard(feed)
        grown(embedded, made.product, 150)
        assert feed.stop() == 0, feed.output
        assert feed.events("stopped")
        records = stored(embedded, "sim.crypto.trades.raw", f"{VENUE}|SOL-USD")
        here = ids(records)
        truth = made.truth()
        assert here == list(range(here[0], here[0] + len(here)))
        for record, trade_id in zip([r for r in records if r.headers["channel"] == "matches"], here, strict=True):
            fact = truth[trade_id]
            message = json.loads(record.value)
            assert Decimal(message["price"]) == Decimal(fact["price"])
            assert Decimal(message["size"]) == Decimal(fact["size"])
            assert {name: record.headers[name] for name in ("schema_version", "venue", "origin")} == {
                "schema_version": "1",
                "venue": VENUE,
                "origin": "simulated",
            }
            assert int(record.headers["received_at"]) >= fact["market_us"]
            assert re.fullmatch(r"[0-9a-f]{32}", record.headers["connection_id"])
        assert {record.headers["channel"] for record in records} == {"matches", "heartbeat"}
        tickers = stored(embedded, "sim.crypto.ticker.raw", f"{VENUE}|SOL-USD")
        assert len(tickers) >= 100
        assert {record.headers["channel"] for record in tickers} == {"ticker"}
        assert ledger_of(embedded, "SOL-USD") == []


def test_dropped_trades_are_healed_by_rest_and_late_ones_by_themselves(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "XRP-USD", "--rate", "50") as made,
        producer(embedded, made, VENUE, "producer") as feed,
    ):
        heard(feed)
        grown(embedded, made.product)
        made.control("faults", {"fault": "drop", "count": 7})
        grown(embedded, made.product)
        made.control("faults", {"fault": "reorder", "count": 5})
        made.control("faults", {"fault": "duplicate", "count": 5})
        grown(embedded, made.product, 60)
        healed(embedded, made.product)
        assert feed.stop() == 0, feed.output
    rows = ledger_of(embedded, "XRP-USD")
    lost = missing(embedded, made)
    assert len(lost) == 7
    assert lost <= healed_by_rest(embedded, "XRP-USD")
    late = in_holes(rows, "healed") - lost
    assert late
    assert late <= set(arrived(embedded, "XRP-USD"))
    assert lost <= in_holes(rows, "healed")
    assert {cause for _, _, cause, _ in rows} == {"drop"}


def test_what_a_killed_feed_missed_is_known_when_it_is_back(embedded: Settings, tmp_path: Path) -> None:
    with market(embedded, tmp_path / "market", "ADA-USD", "--rate", "50") as made:
        with producer(embedded, made, VENUE, "first") as feed:
            heard(feed)
            grown(embedded, made.product)
            feed.kill()
        last = max(arrived(embedded, "ADA-USD"))
        until(lambda: max(made.truth()) > last + 50, "trades that nobody reads")
        with producer(embedded, made, VENUE, "second") as feed:
            heard(feed)
            grown(embedded, made.product)
            healed(embedded, made.product)
            assert feed.stop() == 0, feed.output
    rows = ledger_of(embedded, "ADA-USD")
    lost = missing(embedded, made)
    assert len(lost) >= 40
    assert in_holes(rows, "healed") == lost
    assert lost <= healed_by_rest(embedded, "ADA-USD")
    assert [cause for _, _, cause, _ in rows] == ["killed"]


def test_a_cut_connection_and_a_silent_one_are_opened_again(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "DOGE-USD", "--rate", "50") as made,
        producer(embedded, made, VENUE, "producer", feed_silence_s=2) as feed,
    ):
        heard(feed)
        grown(embedded, made.product)
        made.control("faults", {"fault": "disconnect", "seconds": 1})
        until(lambda: len(feed.events("connected")) >= 2, "a second connection")
        grown(embedded, made.product)
        made.control("faults", {"fault": "stall", "seconds": 20})
        until(lambda: feed.events("silence"), "the watchdog")
        until(lambda: len(feed.events("connected")) >= 3, "a third connection")
        grown(embedded, made.product)
        healed(embedded, made.product)
        assert feed.stop() == 0, feed.output
    rows = ledger_of(embedded, "DOGE-USD")
    lost = missing(embedded, made)
    assert lost
    assert in_holes(rows, "healed") == lost
    assert lost <= healed_by_rest(embedded, "DOGE-USD")
    assert {cause for _, _, cause, _ in rows} == {"reconnect"}


def test_bad_messages_are_published_byte_for_byte_and_oversize_ones_in_part(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "LTC-USD", "--rate", "20") as made,
        producer(embedded, made, VENUE, "producer") as feed,
    ):
        heard(feed)
        grown(embedded, made.product, 5)
        for fault in ("malformed", "truncated", "unknown_type", "year_one", "oversize"):
            made.control("faults", {"fault": fault, "count": 2})
        grown(embedded, made.product, 40)
        assert feed.stop() == 0, feed.output
    assert missing(embedded, made) == set()
    everything = [
        record for key in (f"{VENUE}|LTC-USD", VENUE) for record in stored(embedded, "sim.crypto.trades.raw", key)
    ]
    oversize = [record for record in everything if record.headers.get("oversize") == "1"]
    assert len(oversize) == 2
    for record in oversize:
        assert len(record.value) == 1024**2
        assert int(record.headers["original_length"]) > 8 * 1024**2
        assert len(record.headers["sha256"]) == 64
    assert sum(record.headers["channel"] == "undecodable" for record in everything) >= 4
    assert sum(record.headers["channel"] == "status_of_everything" for record in everything) == 2


def broker(settings: Settings) -> int:
    """The process that listens on Kafka's port."""
    listening = (
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == settings.kafka_port and each.pid
    )
    return next(listening)


def test_a_full_queue_closes_the_socket_and_what_was_traded_meanwhile_is_a_known_hole(
    embedded: Settings, tmp_path: Path
) -> None:
    with (
        market(embedded, tmp_path / "market", "AVAX-USD", "--rate", "200") as made,
        producer(embedded, made, VENUE, "producer", feed_queue_messages=100) as feed,
    ):
        heard(feed)
        grown(embedded, made.product)
        pid = broker(embedded)
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: feed.events("backpressure"), "a full queue")
            at = max(made.truth())
            until(lambda: max(made.truth()) > at + 400, "trades that nobody reads")
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: any(event["cause"] == "backpressure" for event in feed.events("gap")), "the hole")
        grown(embedded, made.product)
        healed(embedded, made.product)
        assert feed.stop() == 0, feed.output
    rows = ledger_of(embedded, "AVAX-USD")
    lost = missing(embedded, made)
    assert len(lost) >= 300
    assert in_holes(rows, "healed") == lost
    assert lost <= healed_by_rest(embedded, "AVAX-USD")
    assert {cause for _, _, cause, _ in rows} == {"backpressure"}
    here = arrived(embedded, "AVAX-USD")
    assert len(here) == len(set(here)) or set(here) | lost == set(range(min(here), max(here) + 1))


def test_the_feed_outlives_postgres_and_writes_its_holes_when_it_is_back(embedded: Settings, tmp_path: Path) -> None:
    with market(embedded, tmp_path / "market", "LINK-USD", "--rate", "50") as made:
        # a port where nobody is yet: the ledger's writes wait
        with producer(embedded, made, VENUE, "away", postgres_port=1) as feed:
            heard(feed)
            grown(embedded, made.product)
            made.control("faults", {"fault": "drop", "count": 3})
            until(lambda: feed.events("gap"), "a hole")
            until(lambda: feed.events("healed"), "its trades by REST")
            until(lambda: feed.events("postgres_away"), "a refused write")
            # far enough beyond the hole that the next start judges it, see ingest/tail.py
            grown(embedded, made.product, 60)
            assert feed.child.poll() is None
            assert feed.stop() == 0, feed.output
            assert feed.events("ledger_behind")
        lost = missing(embedded, made)
        assert len(lost) == 3
        assert ledger_of(embedded, "LINK-USD") == []
        with producer(embedded, made, VENUE, "back") as feed:
            heard(feed)
            until(lambda: lost <= in_holes(ledger_of(embedded, "LINK-USD"), "healed"), "the hole in the ledger")
            # the pages that the first one asked for are in Kafka: nobody asks for them again
            assert not feed.events("healed")
            assert feed.stop() == 0, feed.output


def test_metrics_are_served_under_their_names(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "DOT-USD", "--rate", "20") as made,
        producer(embedded, made, VENUE, "producer") as feed,
    ):
        heard(feed)
        grown(embedded, made.product, 5)
        port = next(
            each.laddr.port
            for each in psutil.Process(feed.child.pid).net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    for name in ("messages_total", "bytes_total", "delivered_total", "queue_messages", "connected"):
        assert f"marketflow_{name}{{" in text
    assert re.search(r'marketflow_messages_total\{channel="matches",venue="coinbase_exchange"\} [1-9]', text)
    assert "marketflow_publish_latency_seconds_bucket" in text


def test_a_venue_that_is_silent_or_gone_makes_no_hung_feed(
    embedded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging, "LOOP_QUIET_S", 5.0)
    monkeypatch.setattr(hanging, "OVERDUE_S", 5.0)
    (port,) = free_ports(1)
    settings = embedded.model_copy(update={"producer_coinbase_metrics_port": port})
    with (
        market(embedded, tmp_path / "market", "DOT-USD", "--rate", "20") as made,
        producer(embedded, made, VENUE, "producer", feed_silence_s=60, producer_coinbase_metrics_port=port) as feed,
    ):
        heard(feed)

        def said() -> dict[str, float]:
            found = sources.scrape(settings, "producer-coinbase")
            assert found is not None
            assert hanging.why_hung(found, 3600) is None
            return found

        grown(embedded, made.product, 5)
        made.control("faults", {"fault": "stall", "seconds": 30})
        until(lambda: time.time() - said()["marketflow_last_message_timestamp_seconds"] > 7, "the venue's silence")
        made.process.kill()
        until(lambda: said()["marketflow_connected"] == 0, "the connection's end")
        until(lambda: said()["marketflow_reconnects_total"] >= 4, "attempts to connect again")
        # one that stands still does not answer, and is the same when it goes on
        os.kill(feed.child.pid, signal.SIGSTOP)
        assert sources.scrape(settings, "producer-coinbase", timeout_s=1) is None
        os.kill(feed.child.pid, signal.SIGCONT)
        said()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset": "replay"}, "MARKETFLOW_DATASET"),
        ({"feed_silence_s": 0}, "MARKETFLOW_FEED_SILENCE_S"),
        ({"products": "BTC-DOGE"}, "MARKETFLOW_PRODUCTS"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    embedded: Settings, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    made = Market(Process(None, tmp_path), tmp_path, "BTC-USD", {})  # type: ignore[arg-type]
    with producer(embedded, made, VENUE, "producer", **changes) as feed:
        assert feed.child.wait(60) == 2
        (line,) = feed.output.splitlines()
        assert named in line


def test_a_feed_leaves_loudly_before_the_brokers_disk_is_full(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", "LTC-USD", "--rate", "20") as made,
        producer(embedded, made, VENUE, "producer", minimum_free_disk_bytes=2**62) as feed,
    ):
        assert feed.child.wait(60) == 1
        assert "MARKETFLOW_MINIMUM_FREE_DISK_BYTES asks for" in feed.output.splitlines()[-1]
