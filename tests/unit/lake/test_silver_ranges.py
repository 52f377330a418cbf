"""The arithmetic of silver's batches: ranges of ids, chunks of offsets, and what proves that none is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.errors import LakeStateError
from marketflow.lake import accounting, silver_dedupe, silver_parse, silver_read, watermark
from marketflow.lake.silver_dedupe import IdRange
from marketflow.lake.silver_read import Run

GROUP = ("coinbase_exchange", "BTC-USD")
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
RANGES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 30)).map(lambda pair: IdRange(GROUP, pair[0], sum(pair))), max_size=40
)


def ids(ranges: list[IdRange]) -> set[int]:
    return {number for one in ranges for number in range(one.low, one.high + 1)}


@given(RANGES)
def test_a_union_loses_no_id_and_stays_short(ranges: list[IdRange]) -> None:
    merged = silver_dedupe.union(ranges)
    assert ids(merged) >= ids(ranges)
    assert len(merged) <= 16
    assert all(before.high < after.low for before, after in pairwise(merged))


@given(RANGES)
def test_every_id_that_two_ranges_hold_lies_in_an_overlap(ranges: list[IdRange]) -> None:
    held = [number for one in ranges for number in range(one.low, one.high + 1)]
    twice = {number for number in held if held.count(number) > 1}
    assert ids(silver_dedupe.overlaps(ranges)) >= twice
    assert ids(silver_dedupe.overlaps(ranges)) <= ids(ranges)


def test_ranges_of_two_groups_never_overlap() -> None:
    other = (GROUP[0], "ETH-USD")
    assert silver_dedupe.overlaps([IdRange(GROUP, 1, 9), IdRange(other, 5, 9)]) == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=300))
def test_ids_are_covered_by_few_ranges_whatever_their_distance(numbers: list[int]) -> None:
    distinct = np.unique(np.array(numbers, np.int64))
    ranges = list(silver_parse.id_ranges(distinct))
    assert len(ranges) <= 16
    assert all(any(low <= number <= high for low, high in ranges) for number in numbers)


def test_one_old_trade_among_new_ones_gets_a_range_of_its_own() -> None:
    distinct = np.array([5, *range(900_000, 901_000)], np.int64)
    assert list(silver_parse.id_ranges(distinct)) == [(5, 5), (900_000, 900_999)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_chunks_are_consecutive_pieces_of_the_order_and_miss_nothing(batches: list[tuple[int, int]], most: int) -> None:
    runs, ends = [], dict.fromkeys(range(4), 0)
    for number, (partition, count) in enumerate(batches):
        start = ends[partition]
        runs.append(Run("t", partition, start, start + count, NOON + timedelta(seconds=number)))
        ends[partition] += count
    read: list[tuple[int, int]] = []
    for piece in silver_read.chunks(runs, most):
        assert 0 < piece.messages <= most
        for (_, partition), first in sorted(piece.first.items()):
            read += [(partition, offset) for offset in range(first, piece.after["t", partition])]
    assert sorted(read) == [(p, offset) for p in range(4) for offset in range(ends[p])]
    assert len(list(silver_read.chunks(runs, most))) == -(-sum(ends.values()) // most)


def _chunk(first: int, after: int) -> silver_read.Chunk:
    return silver_read.chunk([Run("t", 0, first, after, NOON)])


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ([("t", 0, 5, 7), ("t", 0, 9, 9)], "read offset 9 where 8 was next"),
        ([("t", 0, 5, 7), ("t", 0, 7, 9)], "read offset 7 where 8 was next"),
        ([("t", 0, 5, 8)], "read up to"),
        ([("t", 0, 5, 9), ("t", 1, 0, 0)], "read offset 0 where None was next"),
    ],
)
def test_a_row_not_read_or_read_twice_is_found(read: list[tuple[str, int, int, int]], says: str) -> None:
    with pytest.raises(LakeStateError, match=says):
        silver_read.check_complete(_chunk(5, 10), read, "lake.sim_bronze.trades_raw")


def test_what_was_read_in_any_order_is_complete() -> None:
    silver_read.check_complete(_chunk(5, 10), [("t", 0, 8, 9), ("t", 0, 5, 7)], "lake.sim_bronze.trades_raw")


@given(st.dictionaries(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3)), st.integers(0, 2**62), max_size=6))
def test_a_watermark_survives_its_json(offsets: dict[tuple[str, int], int]) -> None:
    assert watermark.decode_offsets(watermark.encode_offsets(offsets)) == offsets


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=watermark.MOST_HOURS))
def test_touched_hours_survive_their_json(numbers: set[int]) -> None:
    touched = {"BTC-USD": [NOON + timedelta(hours=number) for number in sorted(numbers)]}
    assert watermark.decode_touched(watermark.encode_touched(touched)) == touched


def test_a_balance_names_the_sum_that_does_not_hold() -> None:
    accounting.Accounting(messages=3, ignored=1, parsed=2, items=2, accepted=1, rejected=1).check("silver.trades")
    with pytest.raises(LakeStateError, match="0 ignored \\+ 2 parsed \\+ 0 unparseable is not 3 messages"):
        accounting.Accounting(messages=3, parsed=2).check("silver.trades")
    with pytest.raises(LakeStateError, match="1 accepted \\+ 0 duplicate \\+ 0 rejected is not 2 items"):
        accounting.Accounting(messages=1, parsed=1, items=2, accepted=1).check("silver.trades")
