"""How long PostgreSQL keeps the rows of each table that grows with time, and the days that must be there for the next.

Publication, the stream and quality drop what is old as they go; `keep` does the same for all of them, for a home whose
stream or publication stands still, and makes the partitions of the days to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import PRODUCT_DAY, TRADE_FEATURES
from marketflow.contracts.ops import QUALITY_RESULT
from marketflow.contracts.tables import POSTGRES_TABLES
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions
from marketflow.warehouse.connection import connect

QUALITY_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Kept:
    """One table after `keep`."""

    table: str
    partitions_made: int
    rows_dropped: int

    def __str__(self) -> str:
        return f"{self.table}: {self.partitions_made} partitions made, {self.rows_dropped} rows of old days dropped"


def window(settings: Settings, table: Table) -> timedelta:
    """How far back PostgreSQL holds a table."""
    if table is QUALITY_RESULT:
        return QUALITY_KEPT
    if table is PRODUCT_DAY:
        return settings.published_days_window
    return settings.published_features_window if table is TRADE_FEATURES else settings.published_window


def keep(settings: Settings, now: datetime | None = None) -> list[Kept]:
    """Every partitioned table: the days ahead are made, and days that are over for longer than its window dropped."""
    today = now or datetime.now(UTC)
    done = []
    for table in POSTGRES_TABLES:
        if table.day_column:
            oldest = today - window(settings, table)
            with connect(settings) as connection:
                made = day_partitions.ensure(connection, table, oldest, today)
            with connect(settings) as connection:
                # the stream drops its own, counted from its newest poll: a feed that was away keeps what it had
                dropped = day_partitions.drop_before(connection, table, oldest) if table.layer != "live" else 0
            done.append(Kept(table.qualified, made, dropped))
    return done
