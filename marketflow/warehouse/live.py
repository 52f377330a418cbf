"""live.* of prices: one batch of the live query, in one transaction. No state is kept anywhere but in these tables.

New observations are inserted (the first value of a key wins, as in silver); what they can change is read back with
its lookback, run through the same kernels as the hourly batch, and written over what was there. So a batch that
comes twice, or late, leaves the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS
from marketflow.contracts.live import ASSET_OBSERVATION, LIVE_PRICE_METRICS, LIVE_TOP_MOVERS
from marketflow.features import movers, prices
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions
from marketflow.warehouse.live_batch import Connection, Row, begin, frame, insert_new, upsert

_LOOKBACK = timedelta(seconds=prices.LOOKBACK_S)
_SERIES = prices.SERIES
_MARKET = movers.MARKET


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed; `repeated` where it had been written before and nothing was done."""

    observations: int = 0
    price_metrics: int = 0
    snapshots: int = 0
    repeated: bool = False


def write_batch(
    connection: Connection, settings: Settings, query: str, batch_id: int, observations: Sequence[Row]
) -> Written:
    """Write one batch and record its number, in the transaction of `connection`, which the caller commits.

    `observations` are rows of live.asset_observation in Kafka's order. `query` names the query and its checkpoint:
    batches are numbered anew in a new checkpoint.
    """
    if not begin(connection, query, batch_id):
        return Written(repeated=True)
    new = insert_new(connection, ASSET_OBSERVATION, _keep(observations, settings), ASSET_OBSERVATION.key)
    if new.is_empty():
        return Written()
    changed = _price_metrics(connection, settings, new)
    upsert(connection, LIVE_PRICE_METRICS, changed.select(PRICE_METRICS.column_names))
    snapshots = sum(_top_movers(connection, settings, market) for market in changed.partition_by(_MARKET))
    return Written(new.height, changed.height, snapshots)


def prune(connection: Connection, settings: Settings) -> int:
    """Drop days older than those that are kept, counted from the newest poll; returns how many rows."""
    row = connection.execute("select least(now(), max(poll_started_at)) from live.asset_observation").fetchone()
    if row is None or row[0] is None:
        return 0
    oldest = row[0] - settings.published_window
    tables = (ASSET_OBSERVATION, LIVE_PRICE_METRICS, LIVE_TOP_MOVERS)
    return sum(day_partitions.drop_before(connection, table, oldest) for table in tables)


def _keep(observations: Iterable[Row], settings: Settings) -> list[Row]:
    """Without those that were older at their poll than what is kept: they would come and go with every poll."""
    kept = settings.published_window
    names = ASSET_OBSERVATION.column_names
    updated, polled = names.index("last_updated"), names.index("poll_started_at")
    return [row for row in observations if row[polled] - row[updated] < kept]


def _price_metrics(connection: Connection, settings: Settings, new: pl.DataFrame) -> pl.DataFrame:
    """Measures of every row that the new observations can have changed, with the poll_started_at of each."""
    bounds = new.group_by(_SERIES).agg(
        pl.col("last_updated").min().alias("first"), pl.col("last_updated").max().alias("last")
    )
    series = dict(zip(bounds.columns, (bounds[name].to_list() for name in bounds.columns), strict=True))
    names = ", ".join(f"seen.{name}" for name in ASSET_OBSERVATION.column_names)
    observations = frame(
        connection.execute(
            f"select {names} from unnest(%(source)s::text[], %(asset_id)s::text[], %(vs_currency)s::text[], "  # noqa: S608
            "%(first)s::timestamptz[], %(last)s::timestamptz[]) as asked (source, asset_id, vs_currency, first, last) "
            "join live.asset_observation as seen using (source, asset_id, vs_currency) "
            "where seen.last_updated between asked.first - %(lookback)s and asked.last + %(lookback)s",
            series | {"lookback": _LOOKBACK},
        ).fetchall(),
        ASSET_OBSERVATION,
    )
    metrics = prices.price_metrics(observations, tolerance_s=settings.change_tolerance_s)
    polls = observations.select(*_SERIES, pl.col("last_updated").alias("ts"), "poll_started_at")
    return (
        metrics.join(bounds, on=_SERIES, how="inner")
        .filter(pl.col("ts").is_between(pl.col("first"), pl.col("last") + _LOOKBACK))
        .join(polls, on=(*_SERIES, "ts"), how="inner")
    )


def _top_movers(connection: Connection, settings: Settings, changed: pl.DataFrame) -> int:
    """Rank one market's snapshots again, from the first to the last that the changed rows can be seen in."""
    source, vs_currency = changed.row(0, named=True)["source"], changed.row(0, named=True)["vs_currency"]
    polled, times = changed["poll_started_at"].to_list(), changed["ts"].to_list()
    first, last = min(polled), max(*polled, max(times) + movers.STALE_AFTER)
    asked = {"source": source, "vs_currency": vs_currency, "first": first, "last": last}
    asked["fresh"] = first - movers.STALE_AFTER
    market = "source = %(source)s and vs_currency = %(vs_currency)s"
    names = ", ".join(ASSET_OBSERVATION.column_names)
    observations = frame(
        connection.execute(
            f"select {names} from live.asset_observation where {market} "  # noqa: S608 - the contract's own names
            "and last_updated > %(fresh)s and poll_started_at <= %(last)s "
            f"union select {names} from live.asset_observation where {market} "
            "and poll_started_at between %(first)s and %(last)s",
            asked,
        ).fetchall(),
        ASSET_OBSERVATION,
    )
    metrics = frame(
        connection.execute(
            f"select {', '.join(PRICE_METRICS.column_names)} from live.price_metrics "  # noqa: S608
            f"where {market} and ts > %(fresh)s and ts <= %(newest)s",
            asked | {"newest": observations["last_updated"].max()},
        ).fetchall(),
        PRICE_METRICS,
    )
    ranked = movers.top_movers(metrics, observations, per_direction=settings.movers_per_direction).filter(
        pl.col("snapshot_ts").is_between(first, last)
    )
    connection.execute(
        f"delete from live.top_movers where {market} and snapshot_ts between %(first)s and %(last)s",  # noqa: S608
        asked,
    )
    upsert(connection, LIVE_TOP_MOVERS, ranked.select(TOP_MOVERS.column_names))
    return observations.filter(pl.col("poll_started_at").is_between(first, last))["poll_started_at"].n_unique()
