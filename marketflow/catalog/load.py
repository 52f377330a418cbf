"""Rows of the lake into Polars or pandas, of one snapshot that is named, so that the same id gives the same rows."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from marketflow.contracts import tables
from marketflow.contracts.columns import Table
from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ConfigurationError
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.settings import load as load_settings

if TYPE_CHECKING:
    import pandas as pd

Moment = datetime | str | None


class Loaded(NamedTuple):
    """Rows sorted by the table's key, and the snapshot that they are of (None of a table that was never written)."""

    frame: pl.DataFrame
    snapshot_id: int | None

    def to_pandas(self) -> pd.DataFrame:
        """The same rows; `attrs` holds the snapshot id."""
        made = self.frame.to_pandas()
        made.attrs["snapshot_id"] = self.snapshot_id
        return made


def load(
    table: str,
    product: str | None = None,
    start: Moment = None,
    end: Moment = None,
    *,
    venue: str | None = None,
    columns: tuple[str, ...] | None = None,
    snapshot: int | None = None,
    settings: Settings | None = None,
) -> Loaded:
    """Rows of a lake table, e.g. `gold.trade_features`, whose event time lies in [start, end).

    A time without a zone is UTC. `product` and `venue` narrow it, in tables that have them. `snapshot` is an id that an
    earlier call returned: snapshots live for a day or, where a table is seldom written, for its last hundred commits.

    Raises:
        ConfigurationError: no such table, column or snapshot, no row of a product that is none of contracts.products, a
            start that is not before the end, or a table without products or times.
    """
    from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan

    settings = settings or load_settings()
    contract = _contract(table)
    wanted = _columns(contract, columns)
    conditions: list[Any] = []
    for name, value in (("product_id", product), ("venue", venue)):
        if value is not None:
            _must_have(contract, name)
            conditions.append(EqualTo(name, value))
    if start is not None or end is not None:
        if contract.hour_column is None:
            raise ConfigurationError(f"{table} has no event time to choose by")
        bounds = ((GreaterThanOrEqual, "start", start), (LessThan, "end", end))
        conditions += [made(contract.hour_column, _moment(name, at)) for made, name, at in bounds if at is not None]
        _must_be_before(start, end)
    known = {one.snapshot_id: one.committed_at for one in readers.snapshots(settings, contract)}
    if snapshot is not None and snapshot not in known:
        newest = ", ".join(f"{key} ({at:%Y-%m-%d %H:%M:%S})" for key, at in list(known.items())[:5]) or "none"
        raise ConfigurationError(f"{table} has no snapshot {snapshot} (any more); the newest: {newest}")
    read = snapshot if snapshot is not None else next(iter(known), None)
    row_filter = reduce(And, conditions) if conditions else None
    fetched = tuple(dict.fromkeys((*wanted, *contract.key)))
    rows = readers.load(settings, contract, row_filter=row_filter, columns=fetched, snapshot_id=read)
    if product is not None and not rows.num_rows and product not in PRODUCTS:  # no row of a real one is an answer
        raise ConfigurationError(f"{table} has no row of {product!r}; products are {', '.join(sorted(PRODUCTS))}")
    return Loaded(pl.DataFrame(pl.from_arrow(rows)).sort(contract.key).select(wanted), read)


def _contract(name: str) -> Table:
    known = {table.qualified for table in LAKE_TABLES}
    if name not in known:
        raise ConfigurationError(f"no table {name!r} in the lake; known: {', '.join(sorted(known))}")
    return tables.table(name)


def _columns(contract: Table, asked: tuple[str, ...] | None) -> tuple[str, ...]:
    for name in asked or ():
        _must_have(contract, name)
    return asked or contract.column_names


def _must_have(contract: Table, name: str) -> None:
    if name not in contract.column_names:
        raise ConfigurationError(
            f"{contract.qualified} has no column {name}; it has {', '.join(contract.column_names)}"
        )


def _must_be_before(start: Moment, end: Moment) -> None:
    if start is not None and end is not None and _moment("start", start) >= _moment("end", end):
        raise ConfigurationError(f"start {start} is not before end {end}")


def _moment(name: str, at: datetime | str) -> str:
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        raise ConfigurationError(f"{name} {at!r} is no time, as 2026-11-20T05:00Z is") from None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
