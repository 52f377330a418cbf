"""Where supervisord's files are, and what is in them: socket, configuration, one environment file per service."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marketflow.errors import ConfigurationError, SetupError
from marketflow.services.definitions import ServiceDefinition, configuration_hash
from marketflow.services.environment import python

# A socket's path may have 107 bytes, and supervisord first binds it under `<path>.<its pid>`.
LONGEST_SOCKET_PATH = 107 - len(".4194304")
LOG_BYTES = "20MB"
LOG_BACKUPS = 2
# after so long a run the wrapper's pauses begin at nothing again
HEALTHY_AFTER_S = 30.0
# the wrapper kills what does not stop, then clears its tree; only after that may supervisord kill the wrapper
WRAPPER_MARGIN_S = 15


@dataclass(frozen=True)
class Places:
    """Files of one home's supervisord."""

    home: Path

    @property
    def run(self) -> Path:
        """Folder of everything below that is not a log."""
        return self.home / "run"

    @property
    def states(self) -> Path:
        """Folder of the wrappers' state and lock files."""
        return self.run / "services"

    @property
    def logs(self) -> Path:
        """Folder of all logs."""
        return self.home / "logs"

    @property
    def configuration(self) -> Path:
        """The configuration supervisord reads."""
        return self.run / "supervisord.conf"

    @property
    def pid_file(self) -> Path:
        """The process id supervisord writes."""
        return self.run / "supervisord.pid"

    @property
    def socket(self) -> Path:
        """The socket; under /tmp where the home's path is too long, by a name that anyone can work out again."""
        usual = self.run / "supervisor.sock"
        if len(os.fsencode(usual)) <= LONGEST_SOCKET_PATH:
            return usual
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path("/tmp") / f"marketflow-{digest}" / "supervisor.sock"  # noqa: S108 - checked to be ours, mode 0700

    def environment_file(self, definition: ServiceDefinition) -> Path:
        """The service's whole environment. A new configuration gets a new file: the running one keeps its own."""
        return self.states / f"{definition.name}.environment.{configuration_hash(definition)}.json"

    def log(self, name: str) -> Path:
        """A service's log."""
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folders; the socket's is private."""
        for folder in (self.run, self.states, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        folder = self.socket.parent
        if folder != self.run:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise SetupError(f"{folder} is not a private folder of this user: remove it, or use a shorter home")
            self._record_socket()

    def _record_socket(self) -> None:
        path = self.home / "stack.json"
        recorded = json.loads(path.read_text()) if path.exists() else {}
        if recorded.get("supervisor_socket") != str(self.socket):
            write_private(path, json.dumps({**recorded, "supervisor_socket": str(self.socket)}, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, readable by its owner alone."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)


def write(places: Places, definitions: Iterable[ServiceDefinition]) -> None:
    """Write the configuration and the environment files for these services. Starts and stops nothing."""
    definitions = tuple(definitions)
    places.prepare()
    for definition in definitions:
        write_private(places.environment_file(definition), json.dumps(definition.environment))
    programs = [_program(places, definition) for definition in definitions]
    write_private(places.configuration, "\n".join([_daemon(places), *programs]))


def remove_old_environments(places: Places) -> None:
    """Delete environment files of configurations no longer in force; only while nothing runs."""
    for path in places.states.glob("*.environment.*.json"):
        path.unlink()


def _daemon(places: Places) -> str:
    user = "user=root\n" if os.geteuid() == 0 else ""
    return f"""\
[unix_http_server]
file={_value(places.socket)}
chmod=0700

[supervisord]
logfile={_value(places.logs / "supervisord.log")}
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
loglevel=info
pidfile={_value(places.pid_file)}
childlogdir={_value(places.logs)}
directory=/
umask=022
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def _program(places: Places, definition: ServiceDefinition) -> str:
    # Nothing starts by itself: who starts supervisord knows what a person has stopped. The wrapper, which pauses
    # between failures, is always restarted, and startsecs=0 keeps supervisord from counting and giving up.
    return f"""\
[program:{definition.name}]
command={_value(shlex.join(wrapper_command(places, definition)))}
directory={_value(definition.directory)}
priority={definition.priority}
autostart=false
autorestart=true
startsecs=0
startretries=1000000
stopsignal=TERM
stopwaitsecs={int(definition.stop_wait_s) + WRAPPER_MARGIN_S}
redirect_stderr=true
stdout_logfile={_value(places.log(definition.name))}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def wrapper_command(places: Places, definition: ServiceDefinition) -> list[str]:
    """The command line that supervisord runs."""
    command = [python(), "-m", "marketflow.services.wrapper", definition.name]
    command += ["--state-dir", str(places.states)]
    command += ["--environment-file", str(places.environment_file(definition))]
    command += ["--configuration", configuration_hash(definition)]
    command += ["--stop-signal", definition.stop_signal, "--stop-scope", definition.stop_scope]
    command += ["--stop-wait", f"{definition.stop_wait_s:g}", "--healthy-after", f"{HEALTHY_AFTER_S:g}"]
    command += ["--user", definition.user] if definition.user else []
    for target in definition.wait_for:
        command += ["--wait", target]
    return [*command, "--", *definition.command]


def _value(text: str | Path) -> str:
    """A value as supervisord's file format takes it; some texts it cannot hold."""
    text = str(text)
    if any(part in text for part in (" ;", " #", "\t;", "\t#", "\n", "\r")):
        raise ConfigurationError(f"supervisord would take a part of this for a comment or another line: {text!r}")
    return text.replace("%", "%%")
