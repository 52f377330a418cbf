"""Holes in silver's ids are found without Spark, and nothing is read where a day's count comes out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from gold_lake import append, at, fresh, trade
from pyspark.sql import SparkSession

from marketflow.contracts.silver import TRADES
from marketflow.lake import readers
from marketflow.lake.trade_holes import FoundHole, SilverTrades
from marketflow.settings import Settings

COINBASE, ADVANCED, BINANCE = "coinbase_exchange", "coinbase_advanced", "binance"
NOW = at("12T12:00")


def moment(trade_id: int) -> datetime:
    """Three days of trades, a minute apart, ending today."""
    return at("10T00:00") + trade_id * timedelta(minutes=1)


def rows(ids: list[int], **other: Any) -> list[dict[str, Any]]:
    return [trade(each, moment(each), **other) for each in ids]


def us(when: datetime) -> int:
    return round(when.timestamp() * 1e6)


def oracle(ids: list[int], market: tuple[str, str]) -> list[FoundHole]:
    """The obvious slow way: id after id."""
    found, here = [], sorted(set(ids))
    for before, after in pairwise(here):
        if after != before + 1:
            seen_us = us(moment(after) + timedelta(milliseconds=40))
            found.append(FoundHole(*market, before + 1, after - 1, us(moment(before)), us(moment(after)), seen_us))
    return found


@pytest.fixture
def silver(embedded: Settings, lake: SparkSession) -> Iterator[SilverTrades]:
    fresh(lake, embedded)
    with SilverTrades(embedded, now=NOW) as opened:
        yield opened


def test_every_hole_of_every_market_is_found_with_its_neighbours_times(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    random.seed(7)
    whole = list(range(1, 3_601))
    lost = set(random.sample(whole, 25)) | set(range(1_400, 1_480)) | {1, 3_600}
    mine = [each for each in whole if each not in lost]
    append(lake, embedded, TRADES, rows(mine[:2_000]) + rows(whole, product_id="BTC-USDT", venue=BINANCE))
    append(lake, embedded, TRADES, rows(mine[2_000:]) + rows([5, 7], product_id="ETH-USD"))
    # some came later, in files of their own
    late = [1_400, 1_401, 1_479]
    append(lake, embedded, TRADES, rows(late))
    expected = oracle([*mine, *late], (COINBASE, "BTC-USD")) + oracle([5, 7], (COINBASE, "ETH-USD"))
    assert len(expected) > 10
    assert silver.holes({}) == expected


def test_between_a_backfilled_day_and_the_first_heard_trade_nothing_is_missing(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    heard = [each for each in range(2_000, 3_000) if each not in (2_500, 2_501)]
    append(lake, embedded, TRADES, rows(list(range(100, 300)), origin="backfill"))
    append(lake, embedded, TRADES, rows(heard))
    # a backfill over heard days: its file has rows of both
    append(lake, embedded, TRADES, rows([2_500], origin="backfill") + rows([3_000, 3_002]))
    append(lake, embedded, TRADES, rows([1, 2, 9], product_id="ETH-USD", origin="backfill"))
    assert silver.holes({}) == oracle([*heard, 2_500, 3_000, 3_002], (COINBASE, "BTC-USD"))


def test_what_the_ledger_explains_is_no_hole_and_is_not_read(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    ids = [each for each in range(1, 3_601) if each not in range(100, 110) and each != 2_000]
    append(lake, embedded, TRADES, rows(ids))
    market = (COINBASE, "BTC-USD")
    assert silver.holes({market: [(1, 0), (100, 109), (2_000, 2_000), (9_000, 9_999)]}) == []
    assert silver._engine is None, "counts of the metadata say it"
    (left,) = silver.holes({market: [(100, 104), (2_000, 2_000)]})
    assert (left.first_id, left.last_id, left.before_us, left.after_us) == (105, 109, us(moment(99)), us(moment(110)))


def test_days_whose_files_hold_two_venues_are_counted_by_reading(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    one = [each for each in range(1, 2_000) if each != 700]
    other = [each for each in range(1, 2_000) if each not in (701, 702)]
    append(lake, embedded, TRADES, rows(one) + rows(other, venue=ADVANCED))
    found = {(hole.venue, hole.first_id, hole.last_id) for hole in silver.holes({})}
    assert found == {(COINBASE, 700, 700), (ADVANCED, 701, 702)}
    for file in readers.data_files(embedded, "silver.trades", ("venue",)):
        assert file.bounds["venue"][0] < file.bounds["venue"][1], "a file holds both venues"


def test_mixed_days_from_before_the_promised_outage_are_left_alone(embedded: Settings, lake: SparkSession) -> None:
    fresh(lake, embedded)
    ids = [each for each in range(1, 2_000) if each not in (700, 1_900)]
    append(lake, embedded, TRADES, rows(ids) + rows(ids, venue=ADVANCED))
    # 700 is on the first day, 1900 on the second
    with SilverTrades(embedded, now=at("15T12:00")) as later:
        assert {hole.first_id for hole in later.holes({})} == {1_900}


def test_trades_around_midnight_may_come_in_any_order(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    days = [trade(each, moment(1_440 - 1 if each % 2 else 1_440 + 1)) for each in range(1_400, 1_480) if each != 1_440]
    append(lake, embedded, TRADES, days)
    assert [(hole.first_id, hole.last_id) for hole in silver.holes({})] == [(1_440, 1_440)]


def test_which_ids_are_there_and_when_their_neighbours_were(
    embedded: Settings, lake: SparkSession, silver: SilverTrades
) -> None:
    append(lake, embedded, TRADES, rows([1, 2, 3, 10, 11, 20]))
    market = (COINBASE, "BTC-USD")
    asked = {market: [(2, 10), (15, 19), (20, 5_000_000)], (BINANCE, "BTC-USDT"): [(1, 5)]}
    assert silver.present(asked) == {market: [(2, 3), (10, 10), (20, 20)], (BINANCE, "BTC-USDT"): []}
    assert silver.around(market, (4, 9)) == (us(moment(3)), us(moment(10)))
    assert silver.around(market, (5, 7)) == (us(moment(3)), us(moment(10)))
    assert silver.around(market, (21, 30)) == (us(moment(20)), None)


@pytest.mark.parametrize("together", [True, False], ids=["in the others' files", "in files of their own"])
def test_venues_that_do_not_number_their_trades_have_no_holes_and_hide_nobody_elses(
    embedded: Settings, lake: SparkSession, silver: SilverTrades, together: bool
) -> None:
    mine = rows([each for each in range(1, 2_000) if each != 700], product_id="BTC-USDT", venue=BINANCE)
    # an id a minute, a million apart, and below and above the others'
    polled = [
        row | {"trade_id": row["trade_id"] * 1_000_003 - 1_000_000, "venue": "ccxt_coinbaseexchange"} for row in mine
    ]
    for commit in [mine + polled] if together else [mine, polled]:
        append(lake, embedded, TRADES, commit)
    found = [(hole.venue, hole.first_id, hole.last_id) for hole in silver.holes({})]
    assert found == [(BINANCE, 700, 700)]
