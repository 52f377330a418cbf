from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS
from marketflow.contracts.silver import ASSET_PRICES
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.movers import top_movers
from marketflow.features.prices import price_metrics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Row = dict[str, object]


def seen(asset: str, observed_s: float, poll_s: float, change: float | None, **more: object) -> Row:
    """One observation with the measures that are ranked; poll_id is named after the poll's start."""
    row = {
        "source": "coingecko",
        "asset_id": asset,
        "vs_currency": "usd",
        "at": NOON + timedelta(seconds=observed_s),
        "poll_id": f"poll{poll_s:g}",
        "poll_started_at": NOON + timedelta(seconds=poll_s),
        "symbol": asset[:3],
        "name": asset.title(),
        "price": Decimal(100),
        "market_cap_rank": 1,
        "change_1min": 0.5,
        "change_5min": change,
        "volatility_5m": None,
    }
    return row | more


def frames_of(rows: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(metrics, observations) as the lake would hand them over."""

    def part(schema: pl.Schema, time: str) -> pl.DataFrame:
        names = ["at" if name == time else name for name in schema.names()]
        names = [name for name in names if name in seen("", 0, 0, 0)]
        types = {name: schema[time if name == "at" else name] for name in names}
        return pl.DataFrame([{name: row[name] for name in names} for row in rows], schema=types).rename({"at": time})

    return part(frames.schema(PRICE_METRICS), "ts"), part(frames.schema(ASSET_PRICES), "last_updated")


def movers(rows: list[Row], per_direction: int = 5) -> list[Row]:
    return top_movers(*frames_of(rows), per_direction=per_direction).to_dicts()


def places(rows: list[Row], poll_s: float, per_direction: int = 5) -> tuple[list[object], list[object]]:
    """Asset ids of one snapshot: gainers, losers."""
    at = [r for r in movers(rows, per_direction) if r["snapshot_ts"] == NOON + timedelta(seconds=poll_s)]
    ranked = sorted(at, key=lambda r: r["rank"])
    return tuple([r["asset_id"] for r in ranked if r["direction"] == way] for way in ("gainer", "loser"))


def slow_movers(rows: list[Row], per_direction: int) -> list[tuple[object, ...]]:
    """Each snapshot anew: what was known, the latest of each asset, two sorts."""
    result = []
    for source, currency in {(r["source"], r["vs_currency"]) for r in rows}:
        market = [r for r in rows if (r["source"], r["vs_currency"]) == (source, currency)]
        for start in {r["poll_started_at"] for r in market}:
            known = sorted((r for r in market if r["poll_started_at"] <= start), key=lambda r: r["at"])
            latest = {r["asset_id"]: r for r in known}.values()
            fresh = [r for r in latest if r["change_5min"] is not None and start - r["at"] < timedelta(minutes=5)]

            def ties(r: Row) -> tuple[object, ...]:
                return (r["market_cap_rank"] is None, r["market_cap_rank"] or 0, r["asset_id"])

            gainers = sorted(fresh, key=lambda r: (-r["change_5min"], *ties(r)))[:per_direction]
            rest = [r for r in fresh if r not in gainers]
            losers = sorted(rest, key=lambda r: (r["change_5min"], *ties(r)))[:per_direction]
            poll = max(r["poll_id"] for r in market if r["poll_started_at"] == start)
            for way, ranked in (("gainer", gainers), ("loser", losers)):
                for rank, r in enumerate(ranked, 1):
                    result.append((source, currency, start, way, rank, poll, r["asset_id"], r["at"], r["change_5min"]))
    return sorted(result)


@st.composite
def polled_markets(draw: st.DrawFn) -> list[Row]:
    rows: dict[tuple[object, ...], Row] = {}
    for _ in range(draw(st.integers(1, 40))):
        poll_s = 60 * draw(st.integers(0, 12))
        row = seen(
            draw(st.sampled_from("abcdefghijkl")),
            poll_s - draw(st.sampled_from([-5, 0, 20, 290, 299.999999, 300, 400])),
            poll_s,
            draw(st.none() | st.sampled_from([-2.0, -1.0, 0.0, 1.0]) | st.floats(-9, 9)),
            market_cap_rank=draw(st.none() | st.integers(1, 3)),
            vs_currency=draw(st.sampled_from(["usd", "usd", "eur"])),
        )
        rows.setdefault((row["asset_id"], row["vs_currency"], row["at"]), row)
    return list(rows.values())


@given(polled_markets(), st.sampled_from([1, 2, 5]), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_place_equals_its_definition_and_input_order_changes_nothing(
    rows: list[Row], per_direction: int, shuffle: random.Random
) -> None:
    key = ("source", "vs_currency", "snapshot_ts", "direction", "rank")
    got = movers(rows, per_direction)
    assert [tuple(r[k] for k in (*key, "poll_id", "asset_id", "observed_at", "change_5min")) for r in got] == (
        slow_movers(rows, per_direction)
    )
    shuffle.shuffle(rows)
    assert movers(rows, per_direction) == got


@given(polled_markets(), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_later_polls_and_older_observations_of_other_polls_change_no_snapshot(rows: list[Row], poll: int) -> None:
    at = NOON + timedelta(seconds=60 * poll)
    whole = [r for r in movers(rows) if r["snapshot_ts"] == at]
    needed = [r for r in rows if r["poll_started_at"] == at or at - r["at"] < timedelta(minutes=5)]
    assert [r for r in movers([r for r in needed if r["poll_started_at"] <= at]) if r["snapshot_ts"] == at] == whole


def test_twelve_assets_give_five_highest_and_five_lowest_and_none_twice() -> None:
    rows = [seen(f"asset{change:02}", 0, 1, float(change)) for change in range(12)]
    gainers, losers = places(rows, 1)
    assert gainers == ["asset11", "asset10", "asset09", "asset08", "asset07"]  # rank 1 rose the most
    assert losers == ["asset00", "asset01", "asset02", "asset03", "asset04"]  # the lowest, though none fell


def test_of_seven_assets_the_losers_are_the_two_that_gainers_left() -> None:
    rows = [seen(name, 0, 1, -float(position)) for position, name in enumerate("abcdefg")]
    assert places(rows, 1) == (["a", "b", "c", "d", "e"], ["g", "f"])  # all fell: five still lead


def test_three_assets_are_all_gainers_and_there_is_no_loser() -> None:
    assert places([seen(name, 0, 1, -1.0) for name in "abc"], 1) == (["a", "b", "c"], [])


def test_equal_changes_go_by_market_cap_rank_without_one_last_then_by_asset_id() -> None:
    ranks = {"a": None, "b": 7, "c": 2, "d": 7, "e": None}
    rows = [seen(name, 0, 1, 1.0, market_cap_rank=rank) for name, rank in ranks.items()]
    assert places(rows, 1) == (["c", "b", "d", "a", "e"], [])
    assert places(rows, 1, per_direction=2) == (["c", "b"], ["d", "a"])


def test_an_asset_seen_exactly_five_minutes_before_the_poll_has_no_place() -> None:
    rows = [seen("stale", 0, 0, 9.0), seen("fresh", 0.000001, 0, 1.0), seen("new", 300, 300, 0.0)]
    assert places(rows, 300) == (["fresh", "new"], [])


def test_an_asset_without_a_five_minute_change_has_no_place_even_if_an_older_observation_had_one() -> None:
    rows = [seen("a", 0, 1, 9.0), seen("a", 30, 31, None), seen("b", 30, 31, 1.0)]
    assert places(rows, 31) == (["b"], [])


def test_a_poll_that_brought_one_new_observation_ranks_the_known_ones_of_all_assets() -> None:
    rows = [seen("a", 0, 1, 9.0), seen("b", 0, 1, 1.0), seen("b", 30, 31, 12.0)]
    assert places(rows, 31) == (["b", "a"], [])
    assert places(rows, 1) == (["a", "b"], [])  # the first snapshot does not see the later price


def test_a_late_page_with_an_older_observation_does_not_bring_the_older_price_back() -> None:
    rows = [seen("a", 30, 31, 2.0, price=Decimal(102)), seen("a", 0, 61, 9.0, price=Decimal(100))]
    latest = [r for r in movers(rows) if r["snapshot_ts"] == NOON + timedelta(seconds=61)]
    assert [(r["price"], r["change_5min"], r["poll_id"]) for r in latest] == [(Decimal(102), 2.0, "poll61")]


def test_an_observation_newer_than_its_polls_start_counts() -> None:
    assert places([seen("a", 8, 1, 2.0)], 1) == (["a"], [])  # a page arrives seconds after the poll's first request


def test_two_polls_of_a_market_in_one_microsecond_are_one_snapshot_of_the_greatest_poll_id() -> None:
    rows = [seen("a", 0, 1, 1.0, poll_id="p1"), seen("b", 0, 1, 2.0, poll_id="p2")]
    assert [(r["poll_id"], r["asset_id"]) for r in movers(rows)] == [("p2", "b"), ("p2", "a")]


def test_the_measures_come_from_price_metrics_of_the_same_observations() -> None:
    points = [
        (asset, 30 * step, 100 + step * slope) for step in range(15) for asset, slope in (("up", 1), ("down", -1))
    ]
    rows = [seen(asset, at, at + 1, None, price=Decimal(price)) for asset, at, price in points]
    _, observations = frames_of(rows)
    money = pl.lit(None, dtype=frames.MONEY)
    observations = observations.with_columns(market_cap=money, volume_24h=money, polled_at="poll_started_at")
    metrics = price_metrics(observations)
    result = top_movers(metrics, observations)
    assert result.schema == frames.schema(TOP_MOVERS)
    assert result["snapshot_ts"].min() == NOON + timedelta(seconds=301)  # nothing is invented before five minutes
    got = result.filter(pl.col("snapshot_ts") == NOON + timedelta(seconds=421)).to_dicts()
    assert [r["asset_id"] for r in got] == ["up", "down"]
    assert got[0]["change_5min"] == pytest.approx(100 * (114 / 104 - 1))
    expected = metrics.filter((pl.col("asset_id") == "up") & (pl.col("ts") == NOON + timedelta(seconds=420)))
    assert {k: v for k, v in got[0].items() if k in expected.columns} == (
        expected.select([c for c in expected.columns if c in got[0]]).to_dicts()[0]
    )


def test_metrics_that_lack_a_needed_observation_are_refused_by_name() -> None:
    metrics, observations = frames_of([seen("a", 0, 1, 1.0), seen("b", 0, 1, 2.0)])
    with pytest.raises(KernelError, match="metrics lack 1 observations, first coingecko / b / usd"):
        top_movers(metrics.head(1), observations)


def test_no_place_for_anybody_is_refused() -> None:
    with pytest.raises(KernelError, match="per_direction"):
        movers([seen("a", 0, 1, 1.0)], per_direction=0)


def test_no_observations_give_no_rows_of_the_contracts_types() -> None:
    assert top_movers(*frames_of([])).equals(frames.empty(TOP_MOVERS))
