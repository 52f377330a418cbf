"""Every table, by layer. DDL, readers, writers, validation, docs/tables.md and the catalogue page come from here."""

from __future__ import annotations

from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.columns import Table
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.contracts.live import LIVE_TABLES
from marketflow.contracts.ops import OPS_TABLES
from marketflow.contracts.silver import SILVER_TABLES

LAKE_TABLES: tuple[Table, ...] = (*BRONZE_TABLES, *SILVER_TABLES, *GOLD_TABLES)
# Postgres holds live.* and ops.* and a copy, of the same columns, of the published gold tables.
POSTGRES_TABLES: tuple[Table, ...] = (*LIVE_TABLES, *GOLD_TABLES, *OPS_TABLES)
ALL_TABLES: dict[str, Table] = {table.qualified: table for table in (*LAKE_TABLES, *LIVE_TABLES, *OPS_TABLES)}


def table(qualified: str) -> Table:
    """The contract of `silver.trades`; KeyError with the known names where there is none."""
    try:
        return ALL_TABLES[qualified]
    except KeyError:
        raise KeyError(f"no table {qualified!r}; known: {', '.join(sorted(ALL_TABLES))}") from None
