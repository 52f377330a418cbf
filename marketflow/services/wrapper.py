"""Run one service as one process tree under supervisord.

    python -m marketflow.services.wrapper NAME [--wait HOST:PORT|/PATH]... [options] -- COMMAND...

supervisord alone leaves a killed program's children beside their replacement, orphans everything when it is killed
itself, and retries a crash for ever without a pause. The wrapper closes that:

- the kernel tells it when supervisord dies, and kills the command when the wrapper dies;
- processes that lose their parent become the wrapper's, and none is left when it leaves;
- what a killed wrapper left behind is found by its state file and ended before the command starts again;
- it waits for what the command needs, says so, and pauses between failures for up to a minute.

The exit status is the command's (128 + signal where one ended it). Standard library only, and Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shlex
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from marketflow.services import processes
from marketflow.services.state import State, delay_s, read_state, take_lock, write_state

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REPORT_EVERY_S = 5.0
# new processes are written down soon after a start, then rarely: a look at /proc costs some milliseconds
RECORD_AFTER_S = (0.2, 1.0, 3.0, 10.0)
RECORD_EVERY_S = 15.0
# with supervisord gone nobody waits for a long farewell
ORPHAN_GRACE_S = 8.0
LEFTOVER_GRACE_S = 5.0
CANNOT_RUN = 127


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """The wrapper was asked to stop before its command ran."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; the command is what follows `--`."""
    parser = argparse.ArgumentParser(prog="marketflow.services.wrapper", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="name of the service")
    parser.add_argument("--wait", action="append", default=[], metavar="HOST:PORT|/PATH", help="start after this is up")
    parser.add_argument("--state-dir", type=Path, default=Path(".marketflow/run/services"))
    parser.add_argument("--environment-file", type=Path, help="JSON object: the command's whole environment")
    parser.add_argument("--configuration", default="", help="hash of what the service was started with")
    parser.add_argument("--stop-signal", choices=("INT", "TERM"), default="TERM")
    parser.add_argument("--stop-scope", choices=("group", "leader"), default="group", help="who gets the signal")
    parser.add_argument("--stop-wait", type=float, default=20.0, metavar="SECONDS", help="then the tree is killed")
    parser.add_argument("--healthy-after", type=float, default=30.0, metavar="SECONDS", help="forget failures then")
    parser.add_argument("--user", metavar="USER:GROUP", help="run the command as another user")
    own, separator, command = list(arguments), "--", []
    if separator in own:
        own, command = own[: own.index(separator)], own[own.index(separator) + 1 :]
    options = parser.parse_args(own)
    if not command:
        parser.error("no command: write it after --")
    options.command = command
    return options


def process_control(option: int, value: int) -> None:
    """prctl(2), or the reason why not."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def is_up(target: str) -> bool:
    """Whether a path exists or a port accepts connections."""
    if target.startswith("/"):
        return Path(target).exists()
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


class Wrapper:
    """One start of one service, from waiting for its turn to the last process of its tree."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.signals = {*STOP_SIGNALS, signal.SIGCHLD}
        self.supervisor = os.getppid()
        self.state = State()
        self.lock: int | None = None

    def run(self) -> int:
        """Everything in order; returns the exit status."""
        # blocked signals queue up until they are asked for: no handler runs in the middle of anything
        signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
        process_control(PR_SET_PDEATHSIG, signal.SIGTERM)
        process_control(PR_SET_CHILD_SUBREAPER, 1)
        if self._supervisor_is_gone():
            return 0
        self.options.state_dir.mkdir(parents=True, exist_ok=True)
        previous = None
        try:
            self._until(lambda: self._own_lock(), "the previous run of this service to end")
            previous = self._take_over()
            self._pause(previous.failures)
            for target in self.options.wait:
                self._until(lambda target=target: is_up(target), target)  # type: ignore[misc]
        except StopRequested:
            if previous is not None:
                self._note("ended", "stopped before it ran", failures=0, crashes=())
            return 0
        return self._run_command()

    # before the command

    def _supervisor_is_gone(self) -> bool:
        """Whether supervisord died before the kernel was asked to tell us; its heir is not a supervisor."""
        if os.getppid() != self.supervisor:
            return True
        return "SUPERVISOR_ENABLED" in os.environ and "supervisor" not in processes.command_line(self.supervisor)

    def _own_lock(self) -> bool:
        self.lock = take_lock(self.options.state_dir, self.options.name)
        return self.lock is not None

    def _take_over(self) -> State:
        """Read the previous run's state, end what it left, and count it as a failure if it was cut off early."""
        previous = read_state(self.options.state_dir, self.options.name)
        if previous.run is not None:
            number = signal.Signals[f"SIG{self.options.stop_signal}"]
            for process, command in processes.end(previous.run, stop_signal=number, grace_s=LEFTOVER_GRACE_S):
                self._say(f"ended process {process.pid} of the previous run: {command[:120]}")
        failures, crashes, crash = previous.failures, previous.crashes, previous.crash
        if previous.phase == "running" and previous.boot_id == processes.boot_id():
            crashes = previous.with_crash(time.time())
            crash = f"its wrapper was killed {time.time() - previous.since:.1f} s after its start"
            failures = 0 if time.time() - previous.since >= self.options.healthy_after else failures + 1
        self.state = State(
            failures=failures,
            wrapper_pid=os.getpid(),
            configuration=self.options.configuration,
            exit_status=previous.exit_status,
            detail=previous.detail,
            crashes=crashes,
            crash=crash,
        )
        self._note("starting", previous.detail)
        return self.state

    def _pause(self, failures: int) -> None:
        seconds = delay_s(failures)
        if not seconds:
            return
        why = f"{failures} failure{'s' if failures > 1 else ''} in a row, next start in {seconds:g} s"
        before = f"{self.state.detail}; " if self.state.detail else ""
        self._note("backoff", before + why)
        self._say(why)
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self._stop_or_sleep(left_s)

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for something, naming it every few seconds in the log and in the state."""
        began = time.monotonic()
        reported_s = 0.0
        while not ready():
            waited_s = time.monotonic() - began
            if reported_s == 0.0 or waited_s - reported_s >= REPORT_EVERY_S:
                reported_s = max(waited_s, 0.001)
                self._say(f"waits for {what} ({waited_s:.0f} s)")
                if self.lock is not None:
                    self._note("waiting", f"waits for {what}")
            self._stop_or_sleep(0.25)

    def _stop_or_sleep(self, seconds: float) -> None:
        received = signal.sigtimedwait(self.signals, seconds)
        if received is not None and received.si_signo in STOP_SIGNALS:
            raise StopRequested

    # the command

    def _run_command(self) -> int:
        environment = dict(os.environ)
        if self.options.environment_file is not None:
            environment = json.loads(self.options.environment_file.read_text())
        run_id = f"{self.options.name}:{uuid.uuid4().hex}"
        environment[processes.RUN_VARIABLE] = run_id
        leader = self._spawn(environment)
        started = processes.read(leader)
        ticks = started.start_ticks if started is not None else 0
        boot = processes.boot_id()
        self._note("running", "", boot_id=boot, run_id=run_id, pid=leader, start_ticks=ticks)
        began = time.monotonic()
        status, stopping = self._watch(leader, began)
        self._clear_tree()
        failures = 0 if stopping or time.monotonic() - began >= self.options.healthy_after else self.state.failures + 1
        ending = f"exited with {status}" if status < 128 else f"ended by signal {status - 128}"
        detail = f"{'stopped: ' if stopping else ''}{ending} after {time.monotonic() - began:.1f} s"
        self._say(detail)
        crashes = () if stopping else self.state.with_crash(time.time())
        ended = {"failures": failures, "crashes": crashes, "crash": "" if stopping else detail, "exit_status": status}
        self._note("ended", detail, run_id="", pid=0, members=(), **ended)
        return status

    def _spawn(self, environment: dict[str, str]) -> int:
        """Start the command; returns its process id once the program is in place, or has failed to be."""
        wrapper = os.getpid()
        sys.stdout.flush()
        # closed by a successful exec, else it brings the reason
        outcome, report = os.pipe()
        leader = os.fork()
        if not leader:
            os.write(report, self._become_command(wrapper, environment).encode())
            os._exit(CANNOT_RUN)
        os.close(report)
        with os.fdopen(outcome) as reasons:
            if reason := reasons.read():
                self._say(f"cannot run {shlex.join(self.options.command)}: {reason}")
        return leader

    def _become_command(self, wrapper: int, environment: dict[str, str]) -> str:
        """In the child: replace it by the command. Returns only when that failed, with the reason."""
        try:
            os.setsid()
            if self.options.user:
                become(self.options.user)
            # after the change of user, which clears it
            process_control(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if os.getppid() != wrapper:
                return "the wrapper is gone"
            os.execvpe(self.options.command[0], self.options.command, environment)  # noqa: S606 - no shell wanted
        except (OSError, LookupError) as error:
            return str(error)

    def _watch(self, leader: int, began: float) -> tuple[int, bool]:
        """Until the command has ended: its status, and whether it was asked to stop."""
        early = [began + seconds for seconds in RECORD_AFTER_S]
        record_at = early.pop(0)
        kill_at: float | None = None
        while True:
            due = record_at if kill_at is None else min(record_at, kill_at)
            received = signal.sigtimedwait(self.signals, max(0.0, due - time.monotonic()))
            status = reap(leader)
            if status is not None:
                return status, kill_at is not None
            now = time.monotonic()
            if received is not None and received.si_signo in STOP_SIGNALS:
                grace_s = self._ask_to_stop(leader)
                kill_at = min(kill_at or now + grace_s, now + grace_s)
            elif kill_at is not None and now >= kill_at:
                self._say(f"did not stop in time: killing process {leader} and its group")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader, signal.SIGKILL)
                kill_at = now + LEFTOVER_GRACE_S
            elif now >= record_at:
                record_at = early.pop(0) if early else now + RECORD_EVERY_S
                self._record(healthy=now - began >= self.options.healthy_after)

    def _ask_to_stop(self, leader: int) -> float:
        """Pass the stop on; returns how long the command may take."""
        orphaned = os.getppid() != self.supervisor
        self._say("supervisord is gone: stopping" if orphaned else "stopping")
        self._note("stopping", "asked to stop")
        number = signal.Signals[f"SIG{self.options.stop_signal}"]
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if self.options.stop_scope == "group" else os.kill)(leader, number)
        stop_wait_s: float = self.options.stop_wait
        return min(stop_wait_s, ORPHAN_GRACE_S) if orphaned else stop_wait_s

    def _record(self, *, healthy: bool) -> None:
        """Write down the tree's processes, so that the next run can find them should this one be killed."""
        members = tuple(process.identity for process in processes.descendants(os.getpid()))
        failures = 0 if healthy else self.state.failures
        if set(members) != set(self.state.members) or failures != self.state.failures:
            self._note(self.state.phase, self.state.detail, members=members, failures=failures)

    def _clear_tree(self) -> None:
        """End every process the command left; as their reaper, no children means nothing is left."""
        asked: set[tuple[int, int]] = set()
        deadline = time.monotonic() + LEFTOVER_GRACE_S
        while not no_children():
            force = time.monotonic() >= deadline
            for process in processes.descendants(os.getpid()):
                if force or process.identity not in asked:
                    asked.add(process.identity)
                    processes.send(process, signal.SIGKILL if force else signal.SIGTERM)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)

    # what is told

    def _note(self, phase: str, detail: str, **changes: object) -> None:
        since = self.state.since if phase == self.state.phase else time.time()
        self.state = self.state.with_changes(**{"phase": phase, "detail": detail, "since": since, **changes})
        write_state(self.options.state_dir, self.options.name, self.state)

    def _say(self, sentence: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            print(f"{now} wrapper of {self.options.name}: {sentence}", flush=True)
        except BrokenPipeError:
            # supervisord, which held the other end, was killed; what is left to do is more than what is left to say
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def become(user_and_group: str) -> None:
    """Give up the present user for another; only root can."""
    import grp
    import pwd

    user, _, group = user_and_group.partition(":")
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(grp.getgrnam(group).gr_gid if group else entry.pw_gid)
    os.setuid(entry.pw_uid)


def reap(leader: int) -> int | None:
    """Collect everything that ended; the leader's exit status once it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == leader:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else 128 - code
    return found


def no_children() -> bool:
    """Collect everything that ended; whether nothing is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def main() -> int:
    """Entry point."""
    return Wrapper(parse(sys.argv[1:])).run()


if __name__ == "__main__":
    sys.exit(main())
