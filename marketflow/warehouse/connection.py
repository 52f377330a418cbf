"""Connections to the dataset's own PostgreSQL database."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psycopg

from marketflow.errors import SetupError
from marketflow.settings import Settings


def connect(
    settings: Settings, role: str = "marketflow_writer", *, database: str | None = None, autocommit: bool = False
) -> psycopg.Connection[tuple[Any, ...]]:
    """A psycopg 3 connection, times in UTC; keepalives let a dead peer be noticed within seconds.

    Raises:
        SetupError: the dataset's database was never made.
    """
    try:
        return psycopg.connect(
            settings.dsn(role, database),
            autocommit=autocommit,
            connect_timeout=5,
            # what pg_stat_activity and doctor call it: the script or the module that runs
            application_name=_program(),
            options="-c timezone=UTC",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            # keepalives say nothing while sent data is unanswered
            tcp_user_timeout=10_000,
        )
    except psycopg.OperationalError as error:
        wanted = database or settings.postgres_database
        if f'database "{wanted}" does not exist' not in str(error):
            raise
        how = "marketflow replay FILE" if settings.dataset == "replay" else f"make up DATASET={settings.dataset}"
        raise SetupError(f"dataset {settings.dataset} was never started here (no database {wanted}): `{how}`") from None


def _program() -> str:
    path = Path(sys.argv[0])
    return (path.parent.name if path.name == "__main__.py" else path.stem) or "python"
