"""Whatever is done to services, in whatever order, rounds bring them to what they should be, and only to that.

Real supervisord, processes and PostgreSQL. The model is a dict a service: what a person asked, whether the
configuration has it, in which version, and whether its program fails. It knows nothing of how rounds decide.
"""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home  # noqa: F401

# isort: split
import os
import signal
import time
from collections import Counter

import pytest
from airflow.sdk.exceptions import AirflowException
from hypothesis import Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from marketflow.services.backend import StackDownError
from marketflow.services.definitions import configuration_hash
from tests.integration.airflow_services_world import services_world
from tests.integration.lifecycle_stage import SERVICES, Producers, impatient
from tests.integration.services_stage import eventually

PATIENCE_S = 60.0
# one of six among 150 with which four examples do all that the test's end asks for
SEED = 15
one_of_them = st.sampled_from(SERVICES)
# what follows a disturbance: the next one, one round, or rounds until all is as it should be
then = st.sampled_from(("nothing", "round", "settle"))


class Lifecycle(RuleBasedStateMachine):
    """Everything that can happen to two producers."""

    open_world = None  # set by the test: a function that gives a world as a context
    came_to_pass = None  # set by the test: counts, over all examples, what was done where there was something to do

    def __init__(self) -> None:
        super().__init__()
        self._context = type(self).open_world()
        self.world = self._context.__enter__()
        self.producers = Producers(self.world)
        self.model = {name: {"asked": None, "enabled": True, "version": 1, "crashes": False} for name in SERVICES}
        self.world.services(*self.definitions())
        self.settle()

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self._context.__exit__(None, None, None)

    def definitions(self):
        return [self.producers.definition(name, one["version"]) for name, one in self.model.items() if one["enabled"]]

    def should_run(self, name):
        return self.model[name]["enabled"] and self.model[name]["asked"] != "stopped"

    # what happens

    @rule(name=one_of_them, then=then)
    def a_person_starts_it(self, name, then):
        self.ask(name, "start", then)

    @rule(name=one_of_them, then=then)
    def a_person_stops_it(self, name, then):
        self.ask(name, "stop", then)
        self.producers.forget_pauses(name)

    @rule(name=one_of_them, then=then)
    def a_person_restarts_it(self, name, then):
        self.producers.forget_pauses(name)
        self.ask(name, "restart", then)

    def ask(self, name, action, then):
        if not self.model[name]["enabled"]:
            with pytest.raises(ValueError, match=f"service '{name}' is none of"):
                self.world.round(feeds(), by="ada", service=name, action=action)
            return
        ran = bool(self.producers.of(name))
        self.model[name]["asked"] = "stopped" if action == "stop" else "running"
        self.round(by="ada", service=name, action=action)
        self.came_to_pass[action] += ran != bool(self.producers.of(name))
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def it_is_killed(self, name, then):
        self.came_to_pass["kill"] += bool(self.producers.of(name))
        self.producers.kill(name)
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def its_wrapper_is_killed(self, name, then):
        self.producers.kill_wrapper(name)
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def it_hangs(self, name, then):
        hangs = self.producers.hang(name)
        self.came_to_pass["hang"] += hangs
        note(f"hangs: {hangs}")
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def it_begins_to_crash(self, name, then):
        if not self.model[name]["crashes"]:
            self.producers.forget_pauses(name)
        self.model[name]["crashes"] = True
        self.producers.crash(name)
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def it_is_mended(self, name, then):
        self.model[name]["crashes"] = False
        self.producers.mend(name)
        self.follow(then)

    @rule(name=one_of_them, then=then)
    def its_configuration_changes(self, name, then):
        self.model[name]["version"] += 1
        self.configured(name, then)

    @rule(name=one_of_them, then=then)
    def it_is_taken_out_or_put_back(self, name, then):
        self.model[name]["enabled"] = not self.model[name]["enabled"]
        self.configured(name, then)

    def configured(self, name, then):
        self.producers.forget_pauses(name)
        self.came_to_pass["configure"] += bool(self.producers.of(name))
        self.world.configure(*self.definitions())
        self.follow(then)

    @rule(then=then)
    def supervisord_is_killed_and_comes_back(self, then):
        os.kill(self.world.backend.client.pid(), signal.SIGKILL)
        eventually(lambda: not self.world.stage.processes() and not self.world.stage.machinery(), "all to end")
        with pytest.raises(StackDownError):
            self.world.round(feeds())
        for name in SERVICES:
            self.producers.forget_pauses(name)
        self.world.backend.up()
        self.follow(then)

    # rounds

    def follow(self, then):
        if then == "round":
            self.round()
        elif then == "settle":
            self.settle()

    def round(self, **asked):
        """One round, and what must be true after any; whether it failed."""
        try:
            self.world.round(feeds(), **asked)
            failed = False
        except AirflowException as error:
            note(f"the round failed: {error}")
            failed = True
        for name in SERVICES:
            assert self.should_run(name) or not self.producers.of(name), f"{name} runs, and is not to"
        self.what_a_person_asked_is_kept()
        return failed

    def settle(self):
        """Rounds until all is as it should be; another one then changes nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while why := self.unsettled():
            assert time.monotonic() < deadline, f"after {PATIENCE_S:g} s of rounds {why}"
            self.round()
        steady = [name for name in SERVICES if not self.model[name]["crashes"]]
        before = {name: [process.pid for process in self.producers.of(name)] for name in steady}
        failed = self.round()
        assert before == {name: [process.pid for process in self.producers.of(name)] for name in steady}
        assert failed == any(self.should_run(name) and self.model[name]["crashes"] for name in SERVICES)

    def unsettled(self):
        """What is not as it should be yet, as a sentence."""
        for name, one in self.model.items():
            status, told = self.world.backend.status().get(name), self.world.alerts(name)
            open_alert = bool(told) and not told[-1][2]
            if not self.should_run(name):
                if self.producers.of(name):
                    return f"{name} runs, and is not to"
                if open_alert:
                    return f"{name} is not to run and is told of: {told[-1]}"
            elif one["crashes"]:
                if self.world.events(name)[-1][0] != "flapping" or not open_alert:
                    return f"{name} crashes and nobody is told: {self.world.events(name)[-1]}"
                assert "the venue refused the key" in self.world.events(name)[-1][1]
            else:
                versions = [process.environ()["VERSION"] for process in self.producers.of(name)]
                if versions != [str(one["version"])] or not self.producers.answers(name):
                    return f"{name} should run in version {one['version']}, there are {versions}: {status}"
                expected = configuration_hash(self.producers.definition(name, one["version"]))
                if status is None or (status.state, status.configuration_hash) != ("running", expected):
                    return f"{name} is {status}"
                if open_alert:
                    return f"{name} is well and told of: {told[-1]}, {self.world.events(name)[-3:]}"
        return None

    # what is always true

    @invariant()
    def there_are_never_two_of_one(self):
        for name in SERVICES:
            assert len(self.producers.of(name)) <= 1

    @invariant()
    def nobody_cuts_the_pauses_of_what_crashes(self):
        for name, one in self.model.items():
            pauses_s = self.producers.pauses_s(name)
            assert not one["crashes"] or pauses_s == sorted(pauses_s)

    @invariant()
    def what_a_person_asked_is_kept(self):
        rows = {name: (desired, by) for name, desired, by in self.world.rows(_DESIRED)}
        for name, one in self.model.items():
            if one["asked"]:
                assert rows[name] == (one["asked"], "ada")


_DESIRED = "select service, desired, set_by from ops.service_desired"


def feeds():
    from marketflow_airflow.services import FeedsOperator

    return FeedsOperator


@pytest.mark.timeout(600)
def test_rounds_bring_services_to_what_they_should_be_whatever_is_done_to_them(embedded, monkeypatch):
    impatient(monkeypatch)
    monkeypatch.setattr(Lifecycle, "open_world", lambda: services_world(embedded, monkeypatch))
    monkeypatch.setattr(Lifecycle, "came_to_pass", Counter())
    asked = os.environ.get("LIFECYCLE_EXAMPLES")
    if asked is None:
        seed(SEED)(Lifecycle)
    # Each step is seconds of real processes: few of them, the same in every run, and none tried again to shrink.
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=int(asked or "4"),
            stateful_step_count=8,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
        ),
    )
    if asked is None:
        never = {"start", "stop", "kill", "hang", "configure"} - set(+Lifecycle.came_to_pass)
        assert not never, f"nothing was there to {', '.join(sorted(never))}: choose another SEED"
