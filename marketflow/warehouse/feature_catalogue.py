"""ops.feature_catalogue: the catalogue of trade features as rows, so that SQL and a page can ask what a column is."""

from __future__ import annotations

from typing import Any

import psycopg

from marketflow.contracts.ops import FEATURE_CATALOGUE
from marketflow.features.trades.catalogue import CATALOGUE

Connection = psycopg.Connection[tuple[Any, ...]]


def write(connection: Connection) -> None:
    """Replace all rows by the catalogue of this version."""
    rows = []
    for position, one in enumerate(CATALOGUE.values(), start=1):
        told = one.as_dict() | {
            "feature_group": one.group,
            "position": position,
            "window_trades": one.window,
            "null_rule": one.null,
        }
        rows.append([told[name] for name in FEATURE_CATALOGUE.column_names])
    names = ", ".join(f'"{name}"' for name in FEATURE_CATALOGUE.column_names)
    marks = ", ".join(["%s"] * len(FEATURE_CATALOGUE.column_names))
    connection.execute("delete from ops.feature_catalogue")
    with connection.cursor() as cursor:
        cursor.executemany(f"insert into ops.feature_catalogue ({names}) values ({marks})", rows)  # noqa: S608 - ours
