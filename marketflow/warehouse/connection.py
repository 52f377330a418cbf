"""Connections to the dataset's own PostgreSQL database."""

from __future__ import annotations

from typing import Any

import psycopg

from marketflow.settings import Settings


def connect(
    settings: Settings, role: str = "marketflow_writer", *, database: str | None = None, autocommit: bool = False
) -> psycopg.Connection[tuple[Any, ...]]:
    """A psycopg 3 connection, times in UTC; keepalives let a dead peer be noticed within seconds."""
    return psycopg.connect(
        settings.dsn(role, database),
        autocommit=autocommit,
        connect_timeout=5,
        options="-c timezone=UTC",
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        # keepalives say nothing while sent data is unanswered
        tcp_user_timeout=10_000,
    )
