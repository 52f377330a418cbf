"""Alerts are told once and ended once, over real HTTP, whether PostgreSQL is there or not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marketflow import cli, cli_quality
from marketflow.alerts import desk
from marketflow.alerts.message import Alert
from marketflow.alerts.store import file_of
from marketflow.quality import watch as module
from marketflow.quality.watch import REPEAT_EVERY_S, Watch
from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings, load
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import PostgresServer, postgres_server
from tests.integration.services_stage import SLEEPER, Stage, eventually
from tests.receiver import Receiver, receiver, serving

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
LATE = Alert(
    key="layer:silver.trades",
    title="silver.trades is late: complete through 20 min ago",
    cause="stream down: market-stream is backoff",
    command="marketflow logs market-stream",
    layer="silver.trades",
    age_s=1200.0,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres_server(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


@pytest.fixture
def settings(server: PostgresServer, hook: Receiver) -> Settings:
    """Nothing is remembered yet; alerts go to the receiver."""
    file_of(server.settings).unlink(missing_ok=True)
    with connect(server.settings, autocommit=True) as connection:
        connection.execute("truncate ops.alert")
    return server.settings.model_copy(update={"alert_url": hook.url})


def kept(settings: Settings) -> list[dict[str, Any]]:
    names = ("alert_key", "opened_at", "times_seen", "sent_at", "failed_sends", "closed_at", "recovery_sent_at")
    with connect(settings, "marketflow_reader") as connection:
        rows = connection.execute(f"select {', '.join(names)} from ops.alert order by opened_at").fetchall()  # type: ignore[arg-type]
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_an_alert_names_layer_age_cause_and_command_once_and_then_how_long_it_lasted(
    settings: Settings, hook: Receiver
) -> None:
    told = [desk.tell(settings, LATE, now=NOON + i * timedelta(minutes=1)).what for i in range(3)]
    ended = [desk.recover(settings, LATE.key, now=NOON + timedelta(minutes=65)).what for _ in range(2)]
    assert (told, ended) == (["sent", "known", "known"], ["recovered", "nothing"])
    first, last = hook.bodies
    assert {name: first[name] for name in ("status", "layer", "age_s", "cause", "command", "dataset", "severity")} == {
        "status": "firing",
        "layer": "silver.trades",
        "age_s": 1200.0,
        "cause": "stream down: market-stream is backoff",
        "command": "marketflow logs market-stream",
        "dataset": "sim",
        "severity": "critical",
    }
    assert first["text"].splitlines()[-1] == "Run: marketflow logs market-stream"
    assert (last["status"], last["lasted_s"], last["key"]) == ("resolved", 3900.0, LATE.key)
    assert last["text"] == f"over after 1 h 5 min: {LATE.title}"
    (row,) = kept(settings)
    assert (row["times_seen"], row["sent_at"], row["failed_sends"]) == (3, NOON, 0)
    assert row["closed_at"] == row["recovery_sent_at"] == NOON + timedelta(minutes=65)


def test_what_comes_again_after_its_end_is_another_alert_and_what_lasts_is_told_again_after_twelve_hours(
    settings: Settings, hook: Receiver
) -> None:
    desk.tell(settings, LATE, now=NOON)
    desk.tell(settings, LATE, now=NOON + timedelta(hours=11, minutes=59))
    desk.tell(settings, LATE, now=NOON + timedelta(hours=12))
    desk.recover(settings, LATE.key, now=NOON + timedelta(hours=13))
    desk.tell(settings, LATE, now=NOON + timedelta(hours=14))
    assert hook.said("status") == [("firing",), ("still firing",), ("resolved",), ("firing",)]
    assert [row["closed_at"] is None for row in kept(settings)] == [False, True]


def test_what_becomes_worse_is_told_at_once_and_again_where_the_target_did_not_take_it(
    settings: Settings, hook: Receiver
) -> None:
    key = "service:producer-coingecko"
    behind, hung = Alert(key, "it is behind", weight=1), Alert(key, "it is hung", weight=3)
    moments = [NOON + minute * timedelta(minutes=1) for minute in range(9)]
    said = [desk.tell(settings, behind, now=moments[0]).what]
    hook.status = 503
    said.append(desk.tell(settings, hung, now=moments[1]).what)
    hook.status = 204
    said += [desk.tell(settings, one, now=at).what for one, at in zip((hung, behind, hung), moments[2:], strict=False)]
    assert said == ["sent", "not sent", "sent", "known", "known"]
    desk.recover(settings, key, now=moments[8])
    assert hook.said("status", "title") == [
        ("firing", "it is behind"),
        ("still firing", "it is hung"),
        ("resolved", "it is hung"),
    ]
    assert [(row["times_seen"], row["failed_sends"]) for row in kept(settings)] == [(5, 1)]


def test_a_person_may_end_what_nothing_else_ends(
    settings: Settings, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_quality, "_settings", lambda: settings)
    key = "task:stream_reset.reset"
    desk.tell(settings, Alert(key, "stream_reset.reset failed"))
    done = CliRunner().invoke(cli.app, ["alerts", "end", key])
    assert (done.exit_code, done.output) == (0, f"alert {key}: recovered, kept in postgres\n")
    assert hook.said("key", "status") == [(key, "firing"), (key, "resolved")]
    again = CliRunner().invoke(cli.app, ["alerts", "end", key])
    assert f"no alert {key} is open" in str(again.exception)


@contextmanager
def speaks_no_http() -> Iterator[str]:
    """A server that greets whoever comes as one of mail does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"220 ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_a_target_that_refuses_is_counted_tried_again_and_raises_nothing(settings: Settings, hook: Receiver) -> None:
    hook.status = 503
    outcome = desk.tell(settings, LATE, now=NOON)
    assert (outcome.what, outcome.detail) == ("not sent", "the webhook answered 503 Service Unavailable")
    nobody = settings.model_copy(update={"alert_url": f"http://127.0.0.1:{free_ports(1)[0]}/"})
    assert "the webhook does not answer" in desk.tell(nobody, LATE, now=NOON).detail
    with speaks_no_http() as address:
        other = settings.model_copy(update={"alert_url": address})
        outcome = desk.tell(other, LATE, now=NOON)
        assert (outcome.what, outcome.detail) == (
            "not sent",
            "the webhook does not answer: BadStatusLine('220 ready\\r\\n')",
        )
    hook.status = 200
    assert desk.tell(settings, LATE, now=NOON + timedelta(minutes=1)).what == "sent"
    assert hook.said("status") == [("firing",)]
    assert [(row["failed_sends"], row["sent_at"]) for row in kept(settings)] == [(3, NOON + timedelta(minutes=1))]


def test_what_nobody_was_told_of_is_remembered_and_ends_without_a_word(settings: Settings, hook: Receiver) -> None:
    silent = settings.model_copy(update={"alert_url": None})
    outcome = desk.tell(silent, LATE, now=NOON)
    assert (outcome.what, outcome.detail) == ("not sent", "MARKETFLOW_ALERT_URL is not set")
    assert desk.recover(settings, LATE.key, now=NOON).what == "recovered"
    assert hook.bodies == []
    assert [(row["failed_sends"], row["closed_at"]) for row in kept(settings)] == [(0, NOON)]


def test_an_end_that_the_target_did_not_take_is_said_again_with_how_long_it_really_lasted(
    settings: Settings, hook: Receiver
) -> None:
    minutes = [NOON + timedelta(minutes=number) for number in range(60)]
    other = Alert("task:gold_bars.rewrite_hours", "gold_bars failed")
    for alert in (LATE, other):
        desk.tell(settings, alert, now=minutes[0])
    hook.status = 503
    for alert in (LATE, other):
        assert desk.recover(settings, alert.key, now=minutes[10]).what == "recovery not sent"
    # one failure is enough to know that it still refuses
    assert [one.what for one in desk.repeat_ends(settings, now=minutes[11])] == ["recovery not sent"]
    hook.status = 200
    desk.tell(settings, other, now=minutes[12])  # came again: its earlier end is no news any more
    assert [str(one) for one in desk.repeat_ends(settings, now=minutes[13])] == [
        f"alert {LATE.key}: recovered, kept in postgres"
    ]
    assert desk.repeat_ends(settings, now=minutes[14]) == []
    assert hook.said("key", "status", "lasted_s") == [
        (LATE.key, "firing", None),
        (other.key, "firing", None),
        (other.key, "firing", None),
        (LATE.key, "resolved", 600.0),
    ]
    late = next(row for row in kept(settings) if row["alert_key"] == LATE.key)
    assert (late["closed_at"], late["recovery_sent_at"]) == (minutes[10], minutes[13])


def test_the_watch_tells_of_wrong_settings_and_says_once_a_minute_what_is_over_and_was_not_taken(
    settings: Settings, hook: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    services = SupervisorBackend(load(home=tmp_path), [stage.definition("alpha", SLEEPER)])

    def not_taken(key: str) -> None:
        desk.tell(settings, replace(LATE, key=key))
        hook.status = 503
        assert desk.recover(settings, key).what == "recovery not sent"
        hook.status = 204

    services.launch()
    try:
        watch = Watch(settings, services)
        monkeypatch.setenv("MARKETFLOW_SOURCES", "nonsense")
        watch.look()
        monkeypatch.delenv("MARKETFLOW_SOURCES")
        watch.look()
        assert hook.said("key", "status") == [("settings:wrong", "firing"), ("settings:wrong", "resolved")]
        hook.arrived.clear()
        watch.repeated_at = -REPEAT_EVERY_S
        not_taken("layer:one")
        watch.look()
        not_taken("layer:two")
        watch.look()  # too early for another
        within_the_minute = hook.said("key", "status")
        watch.repeated_at -= REPEAT_EVERY_S
        watch.look()
    finally:
        services.shutdown()
    assert within_the_minute == [("layer:one", "firing"), ("layer:one", "resolved"), ("layer:two", "firing")]
    assert hook.said("key", "status")[3:] == [("layer:two", "resolved")]


class Health:
    """Airflow's health as an API server says it; None is one that is not well enough to answer."""

    def __init__(self) -> None:
        self.scheduler: str | None = "healthy"
        self.port = 0


@contextmanager
def health() -> Iterator[Health]:
    told = Health()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"scheduler": {"status": told.scheduler}}).encode()
            self.send_response(200 if told.scheduler else 503)
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as told.port:
        yield told


def test_an_alert_of_a_part_of_airflow_lasts_until_the_part_is_said_to_be_well(
    settings: Settings, hook: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    services = SupervisorBackend(load(home=tmp_path), [stage.definition("airflow-scheduler", SLEEPER)])

    def said() -> list[tuple[str, str]]:
        return [(body["key"].removeprefix("airflow:"), body["status"]) for body in hook.bodies]

    with health() as api:
        asked = settings.model_copy(update={"airflow_port": api.port})

        def look(watch: Watch, scheduler: str | None) -> None:
            api.scheduler = scheduler
            watch.lateness_at = time.monotonic()
            watch.look()

        services.launch()
        try:
            running = lambda: services.status()["airflow-scheduler"].state == "running"  # noqa: E731
            eventually(running, "the scheduler to run")
            with monkeypatch.context() as patch:
                patch.setattr(module, "AIRFLOW_PATIENCE_S", 0.0)
                watch = Watch(asked, services)
                look(watch, "unhealthy")
                look(watch, None)
                assert said() == [("scheduler", "firing"), ("api_server", "firing")]
                look(watch, "unhealthy")
                assert said()[2:] == [("api_server", "resolved")]
            # another watch, whose two minutes have only begun
            watch = Watch(asked, services)
            look(watch, "unhealthy")
            assert len(said()) == 3
            look(watch, "healthy")
            assert said()[3:] == [("scheduler", "resolved")]
        finally:
            services.shutdown()


def test_an_outage_of_postgresql_hides_no_alert_doubles_none_and_is_in_the_table_afterwards(
    server: PostgresServer, settings: Settings, hook: Receiver
) -> None:
    desk.tell(settings, LATE, now=NOON)  # before
    away = Alert("postgres:away", "PostgreSQL does not answer")
    short = Alert("service:kafka", "kafka is down")
    server.stop()
    try:
        outcomes = [
            desk.tell(settings, LATE, now=NOON + timedelta(minutes=1)),  # known from before
            desk.tell(settings, away, now=NOON + timedelta(minutes=2)),
            desk.tell(settings, away, now=NOON + timedelta(minutes=3)),
            desk.tell(settings, short, now=NOON + timedelta(minutes=4)),
            desk.recover(settings, short.key, now=NOON + timedelta(minutes=5)),  # began and ended within
        ]
    finally:
        server.start()
    assert [(one.what, one.kept) for one in outcomes] == [
        ("known", "file"),
        ("sent", "file"),
        ("known", "file"),
        ("sent", "file"),
        ("recovered", "file"),
    ]
    assert (file_of(settings).stat().st_mode & 0o777) == 0o600
    after = desk.recover(settings, away.key, now=NOON + timedelta(minutes=10))
    assert (after.what, after.kept) == ("recovered", "postgres")
    assert hook.said("key", "status", "lasted_s") == [
        (LATE.key, "firing", None),
        (away.key, "firing", None),
        (short.key, "firing", None),
        (short.key, "resolved", 60.0),
        (away.key, "resolved", 480.0),
    ]
    assert [(row["alert_key"], row["times_seen"], row["closed_at"] is None) for row in kept(settings)] == [
        (LATE.key, 2, True),
        (away.key, 2, False),
        (short.key, 1, False),
    ]


def test_many_who_see_the_same_thing_at_once_tell_it_once(settings: Settings, hook: Receiver) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: desk.tell(settings, LATE, now=NOON).what, range(8)))
    assert sorted(outcomes) == ["known"] * 7 + ["sent"]
    assert len(hook.bodies) == 1
    assert [row["times_seen"] for row in kept(settings)] == [8]


def test_a_family_is_settled_what_is_not_named_is_over(settings: Settings, hook: Receiver) -> None:
    other = Alert("layer:gold.bars", "gold.bars is late")
    unrelated = Alert("service:kafka", "kafka is down")
    desk.tell(settings, unrelated, now=NOON)
    desk.settle(settings, "layer:", [LATE, other], now=NOON)
    desk.settle(settings, "layer:", [other], now=NOON + timedelta(minutes=15))
    assert hook.said("key", "status") == [
        (unrelated.key, "firing"),
        (LATE.key, "firing"),
        (other.key, "firing"),
        (LATE.key, "resolved"),
    ]


def test_one_address_of_apprise_does_the_same(settings: Settings, hook: Receiver) -> None:
    """Its own JSON target, since that can be received here; what it posts is Apprise's shape and not ours."""
    by_apprise = settings.model_copy(update={"alert_url": f"json://127.0.0.1:{hook.port}/hook"})
    assert desk.tell(by_apprise, LATE, now=NOON).what == "sent"
    assert desk.recover(by_apprise, LATE.key, now=NOON + timedelta(seconds=200)).what == "recovered"
    first, last = hook.bodies
    assert (first["title"], first["type"]) == (LATE.title, "failure")
    assert "marketflow logs market-stream" in first["message"]
    assert (last["title"], last["type"]) == (f"over after 3 min 20 s: {LATE.title}", "success")
    hook.status = 500
    refused = desk.tell(by_apprise, LATE, now=NOON + timedelta(hours=1))
    assert refused.what == "not sent"
    assert refused.detail.startswith("json:// did not take it: ")
    assert "500" in refused.detail
