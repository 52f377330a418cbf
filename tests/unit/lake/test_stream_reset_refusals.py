"""When a checkpoint may not be made anew: every way in which a record would be lost or doubled, and no other."""

from __future__ import annotations

import pytest

from marketflow.lake.stream_reset import Held, refusals

WHOLE = Held(lowest=0, highest=9, rows=10, offsets=10)


@pytest.mark.parametrize(
    ("held", "kafka"),
    [
        ({}, {0: (0, 0)}),
        ({}, {0: (0, 7)}),  # nothing was read yet, everything is still there
        ({0: WHOLE}, {0: (0, 10)}),
        ({0: WHOLE}, {0: (10, 10)}),  # all that Kafka has forgotten is in the table
        ({0: WHOLE}, {0: (3, 25), 1: (0, 4)}),
        ({0: Held(5, 9, 5, 5)}, {0: (7, 12)}),  # the table began behind what Kafka had then
    ],
)
def test_where_nothing_is_lost_or_doubled_it_may_be(held: dict[int, Held], kafka: dict[int, tuple[int, int]]) -> None:
    assert refusals("bronze.trades_raw", held, kafka) == []


@pytest.mark.parametrize(
    ("held", "kafka", "why"),
    [
        ({0: WHOLE}, {0: (12, 20)}, "partition 0: Kafka has forgotten offsets 10 to 11 unread"),
        ({}, {0: (3, 9)}, "partition 0: it holds nothing, and Kafka has forgotten the records before offset 3"),
        ({0: WHOLE}, {0: (0, 4)}, "partition 0: it holds offset 9, and Kafka ends before 4: it is another topic"),
        ({0: Held(0, 9, 11, 10)}, {0: (0, 10)}, "partition 0: 1 records are there twice already"),
        ({0: Held(0, 9, 8, 8)}, {0: (0, 10)}, "partition 0: 2 records between its first and its last are not there"),
        ({2: WHOLE}, {0: (0, 0)}, "holds partition 2, which Kafka's topic has not"),
    ],
)
def test_a_record_that_would_be_lost_or_doubled_is_named(
    held: dict[int, Held], kafka: dict[int, tuple[int, int]], why: str
) -> None:
    (said,) = refusals("bronze.trades_raw", held, kafka)
    assert said.startswith("bronze.trades_raw")
    assert why in said


def test_every_reason_is_told() -> None:
    assert len(refusals("bronze.x", {0: Held(0, 9, 11, 9), 1: WHOLE}, {0: (0, 10), 1: (11, 12)})) == 3
