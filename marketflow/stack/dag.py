"""`make dag DAG=gold_bars DATE=2026-11-20T05:00`: one Dag, once, on this stack's data.

The run has a metadata database of its own (`<home>/airflow-dev`), so that no scheduler hears of its asset events; its
connections are the stack's, so that what it writes is real.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from marketflow.errors import ConfigurationError, MarketflowError, SetupError
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment, program, python
from marketflow.settings import Settings, load
from marketflow.stack import airflow

_USAGE = "make dag DAG=gold_bars DATE=2026-11-20T05:00 (DATE may be left out: the last complete hour)"
_LIST = """
import sys
sys.path += sys.argv[1:]
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], bundle_name="dags-folder")
print("\\n".join(sorted(bag.dags)))
"""


def home(settings: Settings) -> Path:
    """AIRFLOW_HOME of such runs."""
    return settings.home / "airflow-dev"


def environment(settings: Settings) -> dict[str, str]:
    """The stack's Airflow, but for the metadata database, its users, the logs and the metrics."""
    here = settings.model_copy(update={"airflow_auth": "simple", "airflow_remote_logs": None, "airflow_metrics": None})
    own = {
        "AIRFLOW_HOME": str(home(settings)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home(settings) / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home(settings) / "logs"),
    }
    return embedded_environment(settings) | airflow.environment(here) | own


def check(settings: Settings, dag_id: str, date: str) -> None:
    """A wish that cannot be met is refused in a sentence before anything starts."""
    if not dag_id:
        raise ConfigurationError(f"say which Dag: {_USAGE}")
    if date:
        try:
            datetime.fromisoformat(date)
        except ValueError:
            raise ConfigurationError(f"DATE={date} is no time: {_USAGE}") from None
    try:
        socket.create_connection((settings.postgres_host or settings.host, settings.postgres_port), 2).close()
    except OSError as error:
        raise SetupError(f"the stack is down ({error}): run `make up` first, a Dag works on its data") from None


def run(settings: Settings, dag_id: str, date: str, params: str = "") -> int:
    """Run it with its output on the terminal; its exit status, 0 where every task succeeded."""
    check(settings, dag_id, date)
    variables = environment(settings)
    if not (PROJECT_FOLDER / "dags" / f"{dag_id}.py").exists() and dag_id not in (known := _dag_ids(variables)):
        raise ConfigurationError(f"there is no Dag {dag_id!r}; there are {', '.join(known)}")
    migrate(settings, variables)
    command = [program("airflow"), "dags", "test", dag_id, *([date] if date else [])]
    command += ["--conf", params] if params else []
    return subprocess.run(command, env=variables, check=False).returncode  # noqa: S603 - own list


def migrate(settings: Settings, variables: dict[str, str]) -> None:
    """Make or bring up to date the metadata database of such runs."""
    mark, wanted = home(settings) / "migrated.json", json.dumps({"airflow": version("apache-airflow")})
    if mark.exists() and mark.read_text() == wanted:
        return
    home(settings).mkdir(parents=True, exist_ok=True)
    print("making a metadata database for runs of one Dag, once", file=sys.stderr, flush=True)
    done = subprocess.run(  # noqa: S603 - own list
        [program("airflow"), "db", "migrate"], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SetupError(f"`airflow db migrate` failed:\n{done.stderr[-2000:]}")
    mark.write_text(wanted)


def _dag_ids(variables: dict[str, str]) -> list[str]:
    folders = [str(PROJECT_FOLDER / name) for name in ("dags", "plugins")]
    command = [python(), "-c", _LIST, *folders]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)  # noqa: S603 - own list
    # what Airflow says of itself while it starts has spaces
    return [line for line in done.stdout.splitlines() if line and " " not in line]


def main() -> int:
    """Arguments: DAG, DATE and a JSON object of params, the last two may be empty."""
    dag_id, date, params = [*sys.argv[1:], "", "", ""][:3]
    try:
        return run(load(), dag_id.strip(), date.strip(), params.strip())
    except MarketflowError as error:
        print(f"make dag: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
