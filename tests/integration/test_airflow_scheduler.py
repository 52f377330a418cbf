"""The embedded Airflow as it is run: four processes on PostgreSQL, with the project's Dags and some of the test's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import eventually
from tests.integration.scheduler_stage import Airflow, running


@pytest.mark.timeout(600)
def test_the_embedded_airflow_parses_waits_backfills_and_wakes_as_the_dags_rely_on(tmp_path: Path) -> None:
    """One start of four processes for all of it: they cost more than what is looked at."""
    with running(tmp_path) as parts:
        parses_every_dag_and_has_the_pool(parts)
        a_wait_ends_in_the_triggerer(parts)
        a_first_start_runs_the_last_complete_hour_by_its_key(parts)
        a_backfill_of_three_hours_is_three_runs_with_their_windows(parts)
        a_backfill_of_three_days_and_runs_by_the_form_have_whole_days(parts)
        a_backfills_job_does_the_hours_that_wait_and_each_run_has_its_own(parts)
        a_run_by_key_wakes_no_plain_listener_and_leaves_nothing_pending(parts)
        a_run_that_is_cleared_has_the_window_that_it_had(parts)
        a_run_that_is_late_is_told_of_and_so_is_its_end(parts)
        a_run_that_is_ended_by_its_timeout_is_told_of_until_its_task_succeeds(parts)
        a_run_that_is_marked_as_a_whole_is_cleaned_up_after(parts)
        no_dag_has_a_second_version_though_each_was_parsed_again(parts)


def parses_every_dag_and_has_the_pool(parts: Airflow) -> None:
    expected = {
        "producers",
        "market_stream",
        "advance",
        "silver",
        "gold_price_metrics",
        "gold_bars",
        "gold_trade_features",
        "gold_daily",
        "stream_reset",
        "crawl_catalog",
        "quality",
        "publish_product_day",
        "publish_price_metrics",
        "publish_top_movers",
        "publish_bars",
        "publish_trade_features",
        "maintain_lake",
        "heal_gaps",
        "backfill_history",
        "train_forecast",
        "test_waits",
        "test_hours",
        "test_days",
        "test_listens",
        "test_late",
        "test_long",
        "test_marked",
        "test_shares",
    }
    eventually(lambda: {name for (name,) in parts.rows("select dag_id from dag")} >= expected, "every Dag", 120)
    assert {name for (name,) in parts.rows("select dag_id from dag")} == expected
    assert parts.rows("select filename, stacktrace from import_error") == []
    assert parts.rows("select slots, include_deferred from slot_pool where pool = 'spark'") == [(1, False)]


def a_wait_ends_in_the_triggerer(parts: Airflow) -> None:
    parts.command("dags", "trigger", "test_waits")
    query = "select state from task_instance where dag_id = 'test_waits'"
    eventually(lambda: parts.rows(query) == [("deferred",)], "the sensor to be deferred", 90)
    assert parts.rows("select classpath from trigger") == [("marketflow_airflow.freshness.FreshnessTrigger",)]
    with connect(parts.settings, autocommit=True) as connection:
        freshness.mark(connection, "silver.trades", datetime.now(UTC) + timedelta(days=1))
    eventually(lambda: parts.states("test_waits") == ["success"], "the wait to end", 90)


def a_first_start_runs_the_last_complete_hour_by_its_key(parts: Airflow) -> None:
    """`catchup=False` skips the past but for the tick that was due last; the hour may turn while this test runs."""
    eventually(lambda: set(parts.states("test_hours", "scheduled")) == {"success"}, "the due hour's run", 120)
    ((run_id, key, start, end, source), *turned) = sorted(parts.said("test_hours"), key=lambda window: window[2])
    assert run_id.startswith("scheduled__")
    assert len(turned) <= (datetime.fromisoformat(end) + timedelta(hours=1) <= datetime.now(UTC))
    assert source == "partition_key"
    assert datetime.fromisoformat(start).strftime("%Y-%m-%dT%H:%M:%S") == key
    assert datetime.fromisoformat(end) - datetime.fromisoformat(start) == timedelta(hours=1)
    ((run_after,),) = parts.rows("select run_after from dag_run where run_id = %s", run_id)
    assert datetime.fromisoformat(end) == run_after


def a_backfill_of_three_hours_is_three_runs_with_their_windows(parts: Airflow) -> None:
    first, last = "2026-11-10T03:00", "2026-11-10T05:00"
    parts.command("backfill", "create", "--dag-id", "test_hours", "--from-date", first, "--to-date", last)
    eventually(lambda: parts.states("test_hours", "backfill") == ["success"] * 3, "the backfill to end", 120)
    said = parts.said("test_hours")
    assert sorted(window[1:] for window in said if window[0].startswith("backfill__")) == [
        [
            f"2026-11-10T{hour:02}:00:00",
            f"2026-11-10T{hour:02}:00:00+00:00",
            f"2026-11-10T{hour + 1:02}:00:00+00:00",
            "partition_key",
        ]
        for hour in (3, 4, 5)
    ]


def a_backfill_of_three_days_and_runs_by_the_form_have_whole_days(parts: Airflow) -> None:
    parts.command(
        *("backfill", "create", "--dag-id", "test_days", "--from-date", "2026-11-10", "--to-date", "2026-11-12"),
        *("--reprocess-behavior", "completed"),
    )
    # the form fills in the present
    form = {"logical_date": datetime.now(UTC).isoformat()}
    plain = parts.ask("dags/test_days/dagRuns", form)
    parts.ask("dags/test_days/dagRuns", {"logical_date": None, "conf": {"partition": "2026-11-14T05:30:00Z"}})
    ended = lambda: parts.states("test_days", "backfill") + parts.states("test_days", "manual") == ["success"] * 5  # noqa: E731
    eventually(ended, "the backfill and the form's runs to end", 120)
    said = {run_id: window for run_id, *window in parts.said("test_days") if not run_id.startswith("scheduled__")}
    assert said.pop(plain["dag_run_id"])[2:] == [f"{plain['run_after'][:10]}T00:00:00+00:00", "last_complete"]
    assert sorted(said.values()) == [
        [f"2026-11-{day}", f"2026-11-{day}T00:00:00+00:00", f"2026-11-{day + 1}T00:00:00+00:00", source]
        for day, source in ((10, "partition_key"), (11, "partition_key"), (12, "partition_key"), (14, "params"))
    ]


def a_backfills_job_does_the_hours_that_wait_and_each_run_has_its_own(parts: Airflow) -> None:
    def backfilled(first: str, last: str) -> list[list[str]]:
        before = len(parts.jobs.read_text().splitlines())
        parts.command(
            *("backfill", "create", "--dag-id", "test_shares", "--from-date", first, "--to-date", last),
            *("--reprocess-behavior", "completed", "--max-active-runs", "6"),
        )
        query = "select count(*) from backfill b join dag d using (dag_id) where dag_id = 'test_shares' and {}"
        eventually(lambda: parts.rows(query.format("completed_at is null")) == [(0,)], "the backfill to end", 120)
        return [json.loads(line) for line in parts.jobs.read_text().splitlines()[before:]]

    eventually(lambda: parts.states("test_shares", "scheduled") == ["success"], "the due hour's run", 120)
    jobs = backfilled("2026-11-10T03:00", "2026-11-10T08:00")
    assert parts.states("test_shares", "backfill") == ["success"] * 6
    hours = [f"2026-11-10T{hour:02}:00:00+00:00" for hour in range(3, 9)]
    assert sorted(hour for job in jobs for hour in job) == hours, "each hour was done, and once"
    assert len(jobs) < 6
    found = parts.rows(
        "select r.partition_key, x.value from xcom x join dag_run r using (dag_id, run_id) "
        "where x.key = 'return_value' and dag_id = 'test_shares' and r.run_type = 'backfill'"
    )
    assert len(found) == 6
    for key, value in found:
        ((line,),) = [value if isinstance(value, list) else json.loads(str(value))]
        assert f"{key}+00:00" in line["hours"]
        assert line["hours"] in jobs
    # one that is asked for again is done again, whatever was left for it before
    assert backfilled("2026-11-10T05:00", "2026-11-10T05:00") == [[hours[2]]]
    assert list((parts.settings.home / "run" / "spark-host" / "done").glob("*.json")) == []


def a_run_by_key_wakes_no_plain_listener_and_leaves_nothing_pending(parts: Airflow) -> None:
    """What publication relies on: `advance` (no key) wakes it, and hours by key do not pile up for it."""
    events = "select count(*) from asset_event where partition_key is {} null"
    told = lambda: parts.rows(events.format("not")) == [(len(parts.states("test_hours")),)]  # noqa: E731
    eventually(told, "an event of every hour", 60)
    assert parts.states("test_listens") == []
    assert parts.rows("select count(*) from asset_partition_dag_run") == [(0,)]
    assert parts.rows("select count(*) from asset_dag_run_queue") == [(0,)]
    parts.command("dags", "trigger", "test_hours")
    eventually(lambda: parts.states("test_listens") == ["success"], "the listener to be woken", 120)
    assert parts.rows(events.format("")) == [(1,)]
    assert parts.rows("select count(*) from asset_partition_dag_run") == [(0,)]


def a_run_that_is_cleared_has_the_window_that_it_had(parts: Airflow) -> None:
    """Over the REST API, as the UI's button does: one of each way in which a run of these came to be."""
    runs = {
        (dag_id, window[0].split("__")[0], window[-1]): window
        for dag_id in ("test_hours", "test_days")
        for window in parts.said(dag_id)
    }
    assert len(runs) == 7
    for (dag_id, *_), (run_id, *_) in runs.items():
        body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False}
        assert parts.ask(f"dags/{dag_id}/clearTaskInstances", body)["total_entries"] == 1
    again = "select count(*) from task_instance where try_number = 2 and state = 'success' and dag_id = any(%s)"
    eventually(lambda: parts.rows(again, ["test_hours", "test_days"]) == [(len(runs),)], "the second tries", 120)
    for (dag_id, *_), window in runs.items():
        assert [said for said in parts.said(dag_id) if said[0] == window[0]] == [window] * 2


def a_run_that_is_late_is_told_of_and_so_is_its_end(parts: Airflow) -> None:
    """The deadline of gold and of publication, with a second instead of 50 minutes: the scheduler sees it, the
    triggerer tells it, and the run's success ends it."""
    parts.command("dags", "trigger", "test_late")
    eventually(lambda: parts.hook.bodies, "the alert of the deadline", 120)
    assert parts.hook.said("status", "key", "title") == [
        ("firing", "deadline:test_late", "test_late: the hour is late")
    ]
    assert parts.states("test_late") == ["running"]
    parts.windows.with_name("windows.ndjson.go").touch()
    eventually(lambda: len(parts.hook.bodies) > 1, "its end", 120)
    assert parts.hook.said("status", "key")[1:] == [("resolved", "deadline:test_late")]


def a_run_that_is_ended_by_its_timeout_is_told_of_until_its_task_succeeds(parts: Airflow) -> None:
    before = len(parts.hook.bodies)
    parts.command("dags", "trigger", "test_long")
    eventually(lambda: parts.hook.said("key")[before:], "the alert of the run", 120)
    assert parts.states("test_long") == ["failed"]
    title = "test_long: a run took too long and was ended, at task work"
    assert parts.hook.said("status", "key", "title")[before:] == [("firing", "task:test_long.work", title)]
    Path(f"{parts.windows}.long").touch()
    parts.command("dags", "trigger", "test_long")
    eventually(lambda: len(parts.hook.bodies) > before + 1, "the end of the alert", 120)
    assert parts.hook.said("status", "key")[before + 1 :] == [("resolved", "task:test_long.work")]


def a_run_that_is_marked_as_a_whole_is_cleaned_up_after(parts: Airflow) -> None:
    run_id = parts.ask("dags/test_marked/dagRuns", {"logical_date": None})["dag_run_id"]
    tasks = "select task_id, state from task_instance where dag_id = 'test_marked' order by 2 desc, 1"
    eventually(lambda: ("work", "running") in parts.rows(tasks), "the task to run", 120)
    parts.ask(f"dags/test_marked/dagRuns/{run_id}", {"state": "failed"}, "PATCH")
    eventually(lambda: parts.states("test_marked") == ["failed"], "the run to end", 120)
    assert sorted(parts.rows(tasks)) == [("clean", "failed"), ("work", "failed")]
    assert [window[0] for window in parts.said("test_marked")] == [run_id]


def no_dag_has_a_second_version_though_each_was_parsed_again(parts: Airflow) -> None:
    once = (
        "select 1 from dag join dag_version using (dag_id) "
        "where version_number = 1 and last_parsed_time < created_at + interval '10 seconds'"
    )
    eventually(lambda: parts.rows(once) == [], "a second parse", 150)
    assert parts.rows("select dag_id, version_number from dag_version where version_number > 1") == []
