"""Rows of gold.trade_features to train on, of one snapshot that is named."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from marketflow.catalog.load import load
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError, InputError
from marketflow.features import files
from marketflow.forecast.rows import columns, usable_features
from marketflow.settings import Settings

MOST_ROWS = 200_000
"""The newest rows that are trained on: 150 MB of features, and a minute of one core."""
Moment = datetime | str | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be foretold, and from which rows. `venue` may be left out where one alone trades the product."""

    product_id: str
    venue: str | None = None
    horizon: int = 10
    start: Moment = None
    end: Moment = None
    snapshot: int | None = None
    most_rows: int = MOST_ROWS


def rows_of_lake(settings: Settings, wish: Wish) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The newest `most_rows` rows of the wish, and what says which they are.

    Raises:
        ConfigurationError: an unknown product or snapshot, a time that is none.
        InputError: no such rows, or rows of several venues.
    """
    if wish.product_id not in PRODUCTS:
        raise ConfigurationError(f"no product {wish.product_id!r}; known: {', '.join(sorted(PRODUCTS))}")
    wanted = columns(wish.horizon, usable_features())
    name = TRADE_FEATURES.qualified
    read = partial(load, name, wish.product_id, end=wish.end, settings=settings)
    # ids alone first: a busy day has more rows than are wanted, each with 130 columns
    ids = ("venue", "trade_id", "event_ts")
    found = read(start=wish.start, venue=wish.venue, snapshot=wish.snapshot, columns=ids)
    if found.snapshot_id is None:
        raise InputError(f"{name} was never written here: Dag gold_trade_features does it")
    venues = sorted(found.frame["venue"].unique())
    if not venues:
        raise InputError(f"snapshot {found.snapshot_id} of {name} has no rows of {_words(wish)}")
    if len(venues) > 1:
        raise InputError(f"{wish.product_id} is traded on {', '.join(venues)}: name one with --venue")
    newest = found.frame.sort("trade_id").tail(wish.most_rows)
    # times may run against ids: what lies between is read by time, and cut by id
    start: Any = newest["event_ts"].min() if newest.height < found.frame.height else wish.start
    loaded = read(start=start, venue=venues[0], snapshot=found.snapshot_id, columns=wanted)
    rows = loaded.frame.filter(pl.col("trade_id") >= newest["trade_id"][0])
    return rows, {
        "table": name,
        "snapshot_id": found.snapshot_id,
        "start": None if wish.start is None else str(wish.start),
        "end": None if wish.end is None else str(wish.end),
        "most_rows": wish.most_rows,
    }


def rows_of_file(
    path: Path, horizon: int, product_id: str | None, venue: str | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows that `marketflow features build` or `features read` wrote, and what says which they are.

    Raises:
        InputError: the file cannot be read, lacks a column, or has no rows of that product and venue.
    """
    frame = files.read(path, TRADE_FEATURES, columns(horizon, usable_features()))
    for column, value in (("product_id", product_id), ("venue", venue)):
        if value is not None:
            known = sorted(frame[column].unique())
            frame = frame.filter(pl.col(column) == value)
            if frame.is_empty():
                raise InputError(f"{path} has no rows of {column} {value}; it has {', '.join(known) or 'none at all'}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return frame, {"file": path.name, "sha256": digest}


def _words(wish: Wish) -> str:
    """The wish for a person."""
    parts = [f"{wish.venue} {wish.product_id}" if wish.venue else wish.product_id]
    parts += [f"from {wish.start}"] if wish.start else []
    parts += [f"before {wish.end}"] if wish.end else []
    return " ".join(parts)
