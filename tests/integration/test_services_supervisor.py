"""A real supervisord with real programs: what a kill leaves, in which order things stop, what a change touches."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from marketflow.services.backend import ServiceError, StackDownError
from marketflow.services.definitions import ServiceDefinition, configuration_hash
from marketflow.services.supervisor import Applied, SupervisorBackend
from marketflow.services.supervisor_client import SupervisorClient
from marketflow.settings import Settings, load
from tests.integration.services_stage import FAREWELL, SLEEPER, TREE, Stage, eventually

MakeBackend = Callable[..., SupervisorBackend]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    built = Stage(tmp_path)
    yield built
    for process in built.processes().values():
        process.kill()


@pytest.fixture
def backend(stage: Stage) -> Iterator[MakeBackend]:
    """Makes backends of the stage's home; whatever a test did, nothing of it runs afterwards."""

    def make(*services: ServiceDefinition, home: Path = stage.home) -> SupervisorBackend:
        settings: Settings = load(home=home)
        made.append(SupervisorBackend(settings, services))
        return made[-1]

    made: list[SupervisorBackend] = []
    yield make
    for one in made[-1:]:
        one.shutdown()
    assert stage.processes() == {}
    assert stage.machinery() == {}


def running(backend: SupervisorBackend, name: str) -> int:
    """Process id of a service once it runs."""

    def pid() -> int | None:
        status = backend.status()[name]
        return status.pid if status.state == "running" else None

    return int(eventually(pid, f"{name} to run"))


def test_starting_and_stopping_twice_changes_nothing_and_is_no_error(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("alpha", SLEEPER))

    services.up()
    assert services.status()["alpha"].state == "stopped"
    assert services.start("alpha") is True
    pid = running(services, "alpha")
    assert services.start("alpha") is False
    assert running(services, "alpha") == pid
    assert set(stage.processes()) == {pid}
    assert services.stop("alpha") is True
    assert stage.processes() == {}
    assert services.stop("alpha") is False
    assert services.status()["alpha"].state == "stopped"


def test_a_running_service_shows_its_own_process_its_age_and_what_it_was_started_with(
    stage: Stage, backend: MakeBackend
) -> None:
    definition = stage.definition("alpha", SLEEPER)
    services = backend(definition)
    services.launch()

    pid = running(services, "alpha")
    status = services.status()["alpha"]

    assert stage.processes()[pid].cmdline()[-1] == str(stage.home / "alpha.py")
    assert status.configuration_hash == configuration_hash(definition)
    assert status.uptime_s is not None
    assert status.since is not None
    assert status.since.timestamp() == pytest.approx(stage.processes()[pid].create_time(), abs=2)


def test_only_services_meant_to_start_by_themselves_are_launched(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("alpha", SLEEPER), stage.definition("beta", SLEEPER, autostart=False))

    services.launch()

    running(services, "alpha")
    assert services.status()["beta"].state == "stopped"
    assert services.status()["beta"].detail == "not started"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_program_leaves_no_child_beside_its_replacement(
    stage: Stage, backend: MakeBackend, how: signal.Signals
) -> None:
    services = backend(stage.definition("tree", TREE))
    services.launch()
    first = running(services, "tree")
    eventually(lambda: len(stage.processes()) == 3, "the tree to stand")
    old = set(stage.processes())

    os.kill(first, how)

    eventually(lambda: running(services, "tree") != first, "the replacement")
    eventually(lambda: len(stage.processes()) == 3, "the new tree to stand")
    assert not old & set(stage.processes())


def test_a_killed_wrapper_takes_its_program_along_and_the_next_ends_what_is_left(
    stage: Stage, backend: MakeBackend
) -> None:
    services = backend(stage.definition("tree", TREE))
    services.launch()
    first = running(services, "tree")
    eventually(lambda: len(stage.processes()) == 3, "the tree to stand")
    old = set(stage.processes())
    wrapper = next(pid for pid, command in stage.machinery().items() if "wrapper tree" in command)

    os.kill(wrapper, signal.SIGKILL)

    eventually(lambda: running(services, "tree") != first, "the replacement")
    eventually(lambda: len(stage.processes()) == 3, "the new tree to stand")
    assert not old & set(stage.processes())
    assert sum("ended process" in line for line in services.logs("tree")) == 2


def test_a_killed_supervisord_leaves_nothing_and_can_be_started_again(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("tree", TREE), stage.definition("alpha", SLEEPER))
    services.launch()
    running(services, "tree")
    running(services, "alpha")
    eventually(lambda: len(stage.processes()) == 4, "everything to stand")

    os.kill(services.client.pid(), signal.SIGKILL)

    eventually(lambda: not stage.processes() and not stage.machinery(), "everything to end")
    with pytest.raises(StackDownError, match="the stack is down: run `make up`"):
        services.status()
    services.launch()
    running(services, "tree")
    running(services, "alpha")


def test_a_stack_started_over_a_dying_one_never_has_two_of_a_service(stage: Stage, backend: MakeBackend) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    services = backend(stage.definition("stubborn", stubborn, stop_wait_s=3.0))
    services.launch()
    first = running(services, "stubborn")
    eventually(lambda: "awake" in services.logs("stubborn"), "the program to ignore signals")
    os.kill(services.client.pid(), signal.SIGKILL)

    eventually(lambda: not services.client.is_up(), "supervisord to be gone")
    services.launch()
    most = 0
    while (status := services.status()["stubborn"]).state != "running":
        assert status.state == "starting"
        most = max(most, len(stage.processes()))

    assert most <= 1
    assert set(stage.processes()) == {running(services, "stubborn")}
    assert first not in stage.processes()
    assert any("the previous run of this service to end" in line for line in services.logs("stubborn"))


def test_shutdown_stops_airflow_first_then_sources_then_stores_and_postgres_last(
    stage: Stage, backend: MakeBackend
) -> None:
    order = [
        "airflow-scheduler",
        "airflow-dag-processor",
        "airflow-triggerer",
        "airflow-api-server",
        "simulator",
        "producer-coinbase",
        "producer-coingecko",
        "market-stream",
        "s3",
        "kafka",
        "postgres",
    ]
    farewells = stage.home / "farewells"
    services = backend(
        *(
            stage.definition(
                name,
                FAREWELL,
                name,
                variables={"FAREWELLS": str(farewells)},
                stop_signal="INT" if name == "postgres" else "TERM",
            )
            for name in sorted(order)
        )
    )
    services.launch()
    for name in order:
        eventually(lambda name=name: "ready" in services.logs(name), f"{name} to be ready")

    ended = services.shutdown()

    expected = [f"{name} {'SIGINT' if name == 'postgres' else 'SIGTERM'}" for name in order]
    assert farewells.read_text().splitlines() == expected
    assert ended == []
    assert stage.processes() == {}
    assert stage.machinery() == {}
    assert services.shutdown() == []


def test_shutdown_ends_and_names_what_kills_left_behind(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("tree", TREE))
    services.launch()
    leader = running(services, "tree")
    eventually(lambda: len(stage.processes()) == 3, "the tree to stand")
    left = set(stage.processes()) - {leader}
    # the wrapper first, frozen supervisord cannot replace it
    daemon = services.client.pid()
    os.kill(daemon, signal.SIGSTOP)
    for pid in [*(pid for pid in stage.machinery() if pid != daemon), daemon]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: set(stage.processes()) == left, "the leader to die with its wrapper")

    ended = services.shutdown()

    assert {one.pid for one in ended} == left
    assert {one.service for one in ended} == {"tree"}
    assert all("time.sleep(600)" in one.command for one in ended)
    assert stage.processes() == {}


def test_shutdown_ends_a_supervisord_that_does_not_answer_before_what_it_would_start_again(
    stage: Stage, backend: MakeBackend
) -> None:
    services = backend(stage.definition("tree", TREE), stage.definition("alpha", SLEEPER))
    services.launch()
    running(services, "tree")
    running(services, "alpha")
    daemon = services.client.pid()
    os.kill(daemon, signal.SIGSTOP)
    services.client = SupervisorClient(services.client.socket_path, timeout_s=1.0)

    assert [(one.service, one.pid) for one in services.shutdown()] == [("supervisord", daemon)]
    assert stage.processes() == {}
    assert stage.machinery() == {}


def test_a_reload_touches_only_what_changed(stage: Stage, backend: MakeBackend) -> None:
    kept, changed, idle, removed = (stage.definition(name, SLEEPER) for name in ("kept", "changed", "idle", "removed"))
    services = backend(kept, changed, idle, removed)
    services.launch()
    before = {name: running(services, name) for name in ("kept", "changed", "removed")}
    services.stop("idle")
    new = [
        kept,
        *(replace(one, environment={**one.environment, "COLOUR": "blue"}) for one in (changed, idle)),
        stage.definition("added", SLEEPER),
    ]

    again = backend(*new)
    applied = again.up()

    assert applied == Applied(("added",), ("changed", "idle"), ("removed",))
    assert running(again, "kept") == before["kept"]
    restarted = running(again, "changed")
    assert restarted != before["changed"]
    assert stage.processes()[restarted].environ()["COLOUR"] == "blue"
    assert again.status()["idle"].state == "stopped"
    assert set(again.status()) == {"kept", "changed", "idle", "added"}
    assert before["removed"] not in stage.processes()
    assert again.up() == Applied()


def test_a_restart_applies_a_changed_definition_to_that_service_alone(stage: Stage, backend: MakeBackend) -> None:
    one, other = stage.definition("one", SLEEPER), stage.definition("other", SLEEPER)
    backend(one, other).launch()
    changed = [replace(each, environment={**each.environment, "COLOUR": "blue"}) for each in (one, other)]
    services = backend(*changed)
    untouched = running(services, "other")

    services.restart("one")

    restarted = running(services, "one")
    assert stage.processes()[restarted].environ()["COLOUR"] == "blue"
    assert running(services, "other") == untouched
    assert services.status()["one"].configuration_hash == configuration_hash(changed[0])
    assert services.status()["other"].configuration_hash == configuration_hash(other)


def test_a_service_says_what_it_waits_for_and_starts_when_that_is_there(stage: Stage, backend: MakeBackend) -> None:
    awaited = stage.home / "awaited"
    services = backend(stage.definition("alpha", SLEEPER, wait_for=(str(awaited),)))
    services.launch()

    eventually(lambda: services.status()["alpha"].detail == f"waits for {awaited}", "the wait to be shown")
    assert services.status()["alpha"].state == "starting"
    assert services.status()["alpha"].pid is None
    awaited.touch()
    running(services, "alpha")


def test_a_service_that_crashes_pauses_longer_each_time_and_stopping_it_clears_the_slate(
    stage: Stage, backend: MakeBackend
) -> None:
    awaited = stage.home / "awaited"
    crash = f"import os, sys, time\nsys.exit(3) if not os.path.exists({str(awaited)!r}) else time.sleep(600)"
    services = backend(stage.definition("crash", crash))
    services.launch()

    eventually(lambda: "3 failures in a row, next start in 4 s" in "\n".join(services.logs("crash")), "three failures")
    status = services.status()["crash"]

    assert status.state == "backoff"
    assert "exited with 3" in status.detail
    assert "3 failures in a row, next start in 4 s" in status.detail
    pauses = [line.rsplit("next start in ", 1)[1] for line in services.logs("crash") if "next start in" in line]
    assert pauses == ["1 s", "2 s", "4 s"]
    assert services.stop("crash") is True
    awaited.touch()
    services.start("crash")
    running(services, "crash")
    assert sum("next start in" in line for line in services.logs("crash")) == 3


def test_logs_give_the_last_lines_across_a_rotation(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("alpha", "print('one\\ntwo\\nthree', flush=True)\n" + SLEEPER))
    services.launch()
    eventually(lambda: "awake" in services.logs("alpha"), "its output")

    assert services.logs("alpha", 2) == ["three", "awake"]
    path = services.places.log("alpha")
    path.with_name("alpha.log.1").write_text("before one\nbefore two\n")
    assert services.logs("alpha", 5) == ["before two", "one", "two", "three", "awake"]
    assert services.logs("alpha", 0) == []


def test_an_unknown_service_is_an_error_that_names_the_known_ones(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("alpha", SLEEPER))
    services.up()

    for ask in (services.start, services.stop, services.restart, services.logs):
        with pytest.raises(ServiceError, match="no service 'gamma'; there are alpha"):
            ask("gamma")


def test_a_home_with_a_long_path_gets_a_private_socket_elsewhere_and_says_so(
    stage: Stage, backend: MakeBackend
) -> None:
    home = stage.home / ("long" * 30)
    services = backend(stage.definition("alpha", SLEEPER), home=home)

    services.launch()

    running(services, "alpha")
    recorded = Path(json.loads((home / "stack.json").read_text())["supervisor_socket"])
    assert recorded == services.client.socket_path
    assert len(str(recorded)) < 100
    assert stat.S_IMODE(recorded.parent.stat().st_mode) == 0o700
    services.shutdown()
    recorded.parent.rmdir()


def test_secrets_in_the_environment_are_readable_by_their_owner_alone(stage: Stage, backend: MakeBackend) -> None:
    services = backend(stage.definition("alpha", SLEEPER, variables={"API_KEY": "s3cr3t"}))
    services.launch()
    running(services, "alpha")

    holders = [path for path in stage.home.rglob("*") if path.is_file() and "s3cr3t" in path.read_text()]

    assert [path.parent.name for path in holders] == ["services"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in holders] == [0o600]
    assert stat.S_IMODE(services.places.configuration.stat().st_mode) == 0o600
    assert stat.S_IMODE(services.places.socket.stat().st_mode) == 0o700
    assert not any("s3cr3t" in command for command in stage.machinery().values())
