"""`scripts/airflow …`: an `airflow` command with this home's settings.

`dags test` gets a metadata database of its own, as `make dag` does: in the running Airflow's the scheduler would take
the test's run for one of its own and start its tasks too.
"""

from __future__ import annotations

import os
import sys

from marketflow.errors import MarketflowError
from marketflow.services.environment import embedded_environment
from marketflow.settings import load
from marketflow.stack import airflow, dag


def main() -> None:
    """Become the command."""
    arguments = sys.argv[1:]
    try:
        settings = load()
        if arguments[:2] == ["dags", "test"]:
            environment = dag.environment(settings)
            dag.migrate(settings, environment)
        else:
            environment = embedded_environment(settings) | airflow.environment(settings)
    except MarketflowError as error:
        sys.exit(f"airflow: {error}")
    os.execve(airflow.program(), ["airflow", *arguments], environment)  # noqa: S606 - own program


if __name__ == "__main__":
    main()
