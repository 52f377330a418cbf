"""Who moved the most in five minutes, as of each poll of an aggregator."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from marketflow.contracts.gold import TOP_MOVERS
from marketflow.errors import KernelError
from marketflow.features import frames

STALE_AFTER = timedelta(seconds=300)
"""An asset whose last observation is this old has no place: its change is about another five minutes."""
MARKET = ("source", "vs_currency")
ASSET = (*MARKET, "asset_id")
SNAPSHOT = (*MARKET, "snapshot_ts")


def top_movers(metrics: pl.DataFrame, observations: pl.DataFrame, *, per_direction: int = 5) -> pl.DataFrame:
    """The gainers and losers as of every poll that brought at least one new observation.

    A snapshot is a (source, vs_currency, poll_id) of `observations`; snapshot_ts = its poll_started_at. Known as of it
    are the observations of that market whose own poll_started_at ≤ snapshot_ts. Of each asset the latest of these by
    last_updated counts, if its change_5min is not null and snapshot_ts − last_updated < 300 s. Gainers are the
    `per_direction` highest change_5min whatever the sign, losers the `per_direction` lowest of the rest; rank 1 is the
    highest, or the lowest; ties go by market_cap_rank (null last), then asset_id. change_5min in percent, price and
    volatility_5m in vs_currency; change_1min, volatility_5m and market_cap_rank are null where the observation's are.
    Polls of a market that started in the same microsecond know the same and are one snapshot, under the greatest
    poll_id. Source: by definition.

    `metrics` is `price_metrics(observations)` uncut: a row for every observation. A snapshot is final where
    `observations` hold its own poll's rows and all other polls' rows with last_updated in the 300 s before it. Rows
    come back sorted by source, vs_currency, snapshot_ts, direction, rank. The caller cuts.

    Raises:
        KernelError: `metrics` lacks an observation that a snapshot needs, or `per_direction` is below one.
    """
    if per_direction < 1:
        raise KernelError(f"per_direction is {per_direction}: it must be at least 1")
    seen = observations.select(
        *ASSET,
        "poll_id",
        pl.col("last_updated").cast(frames.TIMESTAMP).alias("observed_at"),
        pl.col("poll_started_at").cast(frames.TIMESTAMP).alias("snapshot_ts"),
    )
    ranked = _rank(_with_metrics(_latest_as_of_snapshots(seen), metrics), per_direction)
    return frames.conform(ranked, TOP_MOVERS).sort(*SNAPSHOT, "direction", "rank")


def _latest_as_of_snapshots(seen: pl.DataFrame) -> pl.DataFrame:
    """For each snapshot and asset the latest observation known then, if it is fresh."""
    snapshots = seen.group_by(*SNAPSHOT).agg(pl.col("poll_id").max())
    # a late poll may bring an older observation: the latest known never goes back
    latest = (
        seen.group_by(*ASSET, "snapshot_ts")
        .agg(pl.col("observed_at").max())
        .sort("snapshot_ts")
        .with_columns(pl.col("observed_at").cum_max().over(ASSET))
    )
    asked = snapshots.join(seen.select(ASSET).unique(), on=MARKET, how="inner").sort("snapshot_ts")
    return asked.join_asof(latest, on="snapshot_ts", by=ASSET, strategy="backward", check_sortedness=False).filter(
        pl.col("snapshot_ts") - pl.col("observed_at") < STALE_AFTER
    )


def _with_metrics(latest: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """The measures of each latest observation; an observation without a row in `metrics` is an error, not a null."""
    measures = metrics.rename({"ts": "observed_at"}).with_columns(pl.col("observed_at").cast(frames.TIMESTAMP))
    missing = latest.join(measures, on=(*ASSET, "observed_at"), how="anti")
    if missing.height:
        first = missing.sort(*ASSET, "observed_at").row(0, named=True)
        raise KernelError(
            f"metrics lack {missing.height} observations, first {first['source']} / {first['asset_id']} / "
            f"{first['vs_currency']} / {first['observed_at']}: pass price_metrics(observations) uncut"
        )
    columns = ("symbol", "name", "price", "change_1min", "change_5min", "volatility_5m", "market_cap_rank")
    return latest.join(measures.select(*ASSET, "observed_at", *columns), on=(*ASSET, "observed_at"), how="inner")


def _rank(candidates: pl.DataFrame, per_direction: int) -> pl.DataFrame:
    """Places of both directions; an asset that gained a place as gainer is no loser."""
    candidates = candidates.filter(pl.col("change_5min").is_not_null())
    gainers = _first_places(candidates, "gainer", per_direction)
    rest = candidates.join(gainers, on=(*SNAPSHOT, "asset_id"), how="anti")
    return pl.concat([gainers, _first_places(rest, "loser", per_direction)])


def _first_places(candidates: pl.DataFrame, direction: str, count: int) -> pl.DataFrame:
    """The first `count` of each snapshot, highest first for gainers, lowest first for losers."""
    ordered = candidates.sort(
        *SNAPSHOT,
        "change_5min",
        "market_cap_rank",
        "asset_id",
        descending=[False, False, False, direction == "gainer", False, False],
        nulls_last=True,
    )
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(SNAPSHOT)
    return ordered.with_columns(direction=pl.lit(direction), rank=rank).filter(pl.col("rank") <= count)
