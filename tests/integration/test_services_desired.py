"""What people and configuration want, kept in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from marketflow.services.definitions import ServiceDefinition, configuration_hash
from marketflow.services.desired import Connection, read_desired, record_event, set_defaults, set_desired
from marketflow.settings import Settings

ALPHA = ServiceDefinition("alpha", ("run",), {}, "feed")
BETA = ServiceDefinition("beta", ("run",), {}, "feed", autostart=False)


@pytest.fixture
def connection(embedded: Settings) -> Iterator[Connection]:
    """One transaction that is rolled back, so that no test sees another's rows."""
    with psycopg.connect(embedded.dsn()) as opened:
        opened.execute("delete from ops.service_desired")
        opened.execute("delete from ops.service_event")
        yield opened
        opened.rollback()


def test_configuration_sets_defaults_and_a_persons_choice_outlives_them(connection: Connection) -> None:
    set_defaults(connection, [ALPHA, BETA])
    assert {name: (row.desired, row.set_by) for name, row in read_desired(connection).items()} == {
        "alpha": ("running", "configuration"),
        "beta": ("stopped", "configuration"),
    }

    set_desired(connection, "alpha", "stopped", "ana")
    set_defaults(connection, [ALPHA, replace(BETA, autostart=True)])

    rows = read_desired(connection)
    assert (rows["alpha"].desired, rows["alpha"].set_by) == ("stopped", "ana")
    assert (rows["beta"].desired, rows["beta"].set_by) == ("running", "configuration")
    assert rows["beta"].configuration_hash == configuration_hash(BETA)


def test_a_service_can_be_handed_back_to_the_configuration(connection: Connection) -> None:
    set_desired(connection, "alpha", "stopped", "ana")
    set_desired(connection, "alpha", "running", "configuration")
    set_defaults(connection, [replace(ALPHA, autostart=False)])

    assert read_desired(connection)["alpha"].desired == "stopped"


def test_defaults_that_did_not_change_keep_the_time_they_were_set(connection: Connection) -> None:
    set_defaults(connection, [ALPHA])
    connection.execute("update ops.service_desired set set_at = '2026-01-01 00:00:00+00'")

    set_defaults(connection, [ALPHA])
    assert read_desired(connection)["alpha"].set_at == datetime(2026, 1, 1, tzinfo=UTC)
    set_defaults(connection, [replace(ALPHA, command=("run", "otherwise"))])
    assert read_desired(connection)["alpha"].set_at > datetime(2026, 1, 2, tzinfo=UTC)


def test_defaults_of_services_that_no_longer_exist_go_and_choices_stay(connection: Connection) -> None:
    set_defaults(connection, [ALPHA, BETA])
    set_desired(connection, "gone by hand", "stopped", "ana")

    set_defaults(connection, [ALPHA])

    assert set(read_desired(connection)) == {"alpha", "gone by hand"}


def test_an_event_is_kept_with_its_run_and_written_once(connection: Connection) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    record_event(connection, "alpha", "restarted", "its configuration changed", run_id="scheduled__1", at=at)
    record_event(connection, "alpha", "restarted", "its configuration changed", run_id="scheduled__1", at=at)
    record_event(connection, "alpha", "healthy", "messages arrive")

    rows = connection.execute("select service, event, detail, run_id from ops.service_event order by at").fetchall()
    assert rows == [
        ("alpha", "restarted", "its configuration changed", "scheduled__1"),
        ("alpha", "healthy", "messages arrive", None),
    ]
