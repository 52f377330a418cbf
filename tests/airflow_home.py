"""An Airflow for tests. Import this before anything of Airflow: it reads its settings when it is first imported.

The metadata database is a sqlite file, migrated once a session and copied for every test.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import program

DAGS_FOLDER, PLUGINS_FOLDER = PROJECT_FOLDER / "dags", PROJECT_FOLDER / "plugins"
HOME = Path(tempfile.mkdtemp(prefix="marketflow-airflow-"))
DATABASE, MIGRATED = HOME / "airflow.db", HOME / "migrated.db"
ENVIRONMENT = {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS_FOLDER),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS_FOLDER),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{DATABASE}",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
}

os.environ.update(ENVIRONMENT)
atexit.register(shutil.rmtree, HOME, True)
# as Airflow's own processes find the plugins, and the Dags what lies beside them
sys.path += [str(folder) for folder in (PLUGINS_FOLDER, DAGS_FOLDER) if str(folder) not in sys.path]


def migrate() -> None:
    """Make the migrated database, once."""
    if MIGRATED.exists():
        return
    done = subprocess.run([program("airflow"), "db", "migrate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    DATABASE.rename(MIGRATED)


def fresh_database() -> None:
    """Give the next test a database of its own."""
    from airflow import settings

    migrate()
    settings.engine.dispose()
    for leftover in HOME.glob("airflow.db*"):
        leftover.unlink()
    shutil.copy(MIGRATED, DATABASE)
