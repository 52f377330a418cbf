"""`marketflow backfill` and Dag backfill_history: what was typed becomes a wish, and what was asked for is listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from marketflow.catalog import render as tables
from marketflow.errors import ConfigurationError
from marketflow.ingest.backfill import Report, backfill
from marketflow.ingest.backfill_wish import CANDLES_PREFIX, TRADES_WISH, Wish, moment
from marketflow.settings import Settings
from marketflow.warehouse import backfills
from marketflow.warehouse.connection import connect

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Given:
    """What a person gave, as it was typed; all but `candles` is needed."""

    venue: str | None
    product: str | None
    start: str | None
    end: str | None
    candles: str | None = None

    def wish(self, say: Say) -> Wish:
        """The wish that it means.

        Raises:
            ConfigurationError: something is missing, or is no time.
        """
        missing = [f"--{each.name}" for each in fields(self) if each.name != "candles" and not getattr(self, each.name)]
        if missing:
            raise ConfigurationError(f"a backfill needs {', '.join(missing)} too; `marketflow backfill --help`")
        start, end = moment("start", self.start or "", say), moment("end", self.end or "", say)
        what = TRADES_WISH if self.candles is None else f"{CANDLES_PREFIX}{self.candles}"
        return Wish(self.venue or "", self.product or "", what, start, end)


def run(settings: Settings, given: Given, *, again: bool = False, dry_run: bool = False, say: Say = print) -> Report:
    """Bring it; see `ingest.backfill.backfill`."""
    return backfill(settings, given.wish(say), again=again, dry_run=dry_run, say=say)


def listed(settings: Settings, limit: int = 50) -> list[dict[str, Any]]:
    """Rows of ops.backfill, the last moved first."""
    with connect(settings, "marketflow_reader") as connection:
        return backfills.listed(connection, settings.dataset, limit)


def render(rows: list[dict[str, Any]]) -> str:
    """As a table."""
    # whole: two intervals may differ by less than a second
    shown = [row | {name: row[name].isoformat() for name in ("start_ts", "end_ts")} for row in rows]
    return tables.records(shown) if rows else "nothing was backfilled; `marketflow backfill --help`"
