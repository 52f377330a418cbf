"""Blocks give back the rows that the parser put out; hours are corrected by verdicts without asking the rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row

from marketflow.errors import LakeStateError
from marketflow.lake import silver_pack, silver_parse
from marketflow.lake.silver_batch import HourRows, after_verdicts
from marketflow.lake.silver_sources import CANDLES, PRICES, QUOTES, TRADES, Source

HEADERS = {"venue": "coinbase_exchange", "channel": "matches", "origin": "simulated", "received_at": "1773147600000000"}
INGESTED = datetime(2026, 3, 10, 13, 5, tzinfo=UTC)
HOUR_US = 1_773_144_000_000_000


def match(trade_id: int, time: str = "12:00:00", **changed: Any) -> bytes:
    trade = {
        **{"type": "match", "trade_id": trade_id, "side": "sell", "size": "0.5", "price": "3"},
        **{"product_id": "BTC-USD", "sequence": trade_id, "time": f"2026-03-10T{time}Z"},
    }
    return json.dumps(trade | changed).encode()


def batch_of(values: list[bytes]) -> pa.RecordBatch:
    rows = len(values)
    return pa.record_batch(
        {
            "topic": pa.array(["t"] * rows),
            "partition": pa.array([0] * rows, pa.int32()),
            "offset": pa.array(range(rows), pa.int64()),
            "ingested_at": pa.array([INGESTED] * rows, pa.timestamp("us", "UTC")),
            "headers": pa.array([json.dumps(HEADERS)] * rows, pa.string()),
            "value": pa.array(values, pa.binary()),
        }
    )


MESSAGES = batch_of([match(1), match(2, "12:59:59.999999"), match(3, "11:00:00"), match(1), match(4, side="?")])


def opened(kind: str, names: list[str]) -> list[dict[str, Any]]:
    packed = [
        batch for batch in silver_pack.packer(TRADES)(iter([MESSAGES])) if batch.column("kind")[0].as_py() == kind
    ]
    blocks = pa.Table.from_batches(packed).select(["rows", "block"]).combine_chunks().to_batches()
    return [
        row
        for batch in silver_pack.opener(silver_pack._stored_names(TRADES, kind), names)(iter(blocks))
        for row in batch.to_pylist()
    ]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (silver_parse.ITEM, [*TRADES.table.column_names, "ingested_at"]),
        (silver_parse.SUSPECT, ["kind", *TRADES.table.column_names]),
        (silver_parse.REJECTED, ["reason", "detail", "value", "offset", "item_index", "ingested_at"]),
    ],
)
def test_a_block_gives_back_every_row_of_its_kind(kind: str, names: list[str]) -> None:
    parsed = [row for batch in silver_parse.parser(TRADES)(iter([MESSAGES])) for row in batch.to_pylist()]
    expected = [{name: row[name] for name in names} for row in parsed if row["kind"] == kind]

    assert len(expected) == {"item": 2, "suspect": 2, "rejected": 1}[kind]
    assert opened(kind, names) == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(2, 2)], [2]),
        ([(3, 9)], [3]),
        ([(-5, 1), (4, 90)], []),
        ([(0, 3)], [2, 3]),
        ([(0, 3), (1, 1)], [2, 3]),
        ([(3, 3), (2, 2)], [2, 3]),
    ],
)
def test_only_the_rows_within_spans_of_ids_are_opened(spans: list[tuple[int, int]], expected: list[int]) -> None:
    (batch,) = [b for b in silver_parse.parser(TRADES)(iter([MESSAGES])) if b.column("kind")[0].as_py() == "item"]
    found = silver_pack.within_spans(TRADES, spans, batch)
    assert found.column("trade_id").to_pylist() == expected


def test_a_block_that_lost_a_row_is_refused() -> None:
    blocks = pa.Table.from_batches(
        [b for b in silver_pack.packer(TRADES)(iter([MESSAGES])) if b.column("kind")[0].as_py() == silver_parse.ITEM]
    ).to_batches()[0]
    doubled = blocks.set_column(blocks.schema.names.index("rows"), "rows", pa.array([3], pa.int64()))
    with pytest.raises(LakeStateError, match="a block of 3 items holds 2"):
        list(silver_pack.opener(silver_pack._stored_names(TRADES, "item"), ["trade_id"])(iter([doubled])))


def test_a_rejected_page_is_cut_into_blocks_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silver_pack, "_MOST_BYTES", 1_000)
    refused = batch_of([match(number, side="?" * 300) for number in range(1, 20)])
    blocks = [
        batch.to_pylist()[0]
        for batch in silver_pack.packer(TRADES)(iter([refused]))
        if batch.column("kind")[0].as_py() == silver_parse.REJECTED
    ]
    assert len(blocks) > 3
    assert sum(block["rows"] for block in blocks) == 19
    assert max(len(block["block"]) for block in blocks) < 6_000


def test_tallies_count_the_items_of_each_hour_but_no_suspect() -> None:
    rows = [row for batch in silver_pack.packer(TRADES)(iter([MESSAGES])) for row in batch.to_pylist()]
    hours = {
        row["tally_first"]: (row["tally_name"], row["tally_count"], row["tally_last"])
        for row in rows
        if row["kind"] == silver_parse.HOUR_TALLY
    }
    assert hours == {
        HOUR_US: ("BTC-USD", 1, HOUR_US + 3_599_999_999),
        HOUR_US - 3_600_000_000: ("BTC-USD", 1, HOUR_US - 3_600_000_000),
    }


def judged(kind: str, verdict: str, rows: int, newest_us: int) -> Row:
    return Row(product="BTC-USD", hour_us=HOUR_US, kind=kind, verdict=verdict, rows=rows, newest_us=newest_us)


def test_items_that_are_not_new_leave_their_hour_and_new_suspects_join_it() -> None:
    before = [HourRows("BTC-USD", HOUR_US, 10, HOUR_US + 500)]
    verdicts = [
        judged("item", "duplicate", 2, HOUR_US + 400),
        judged("item", "new", 3, HOUR_US + 500),
        judged("suspect", "new", 1, HOUR_US + 600),
        judged("suspect", "conflict", 4, HOUR_US + 900),
    ]
    assert after_verdicts(before, verdicts) == [HourRows("BTC-USD", HOUR_US, 9, HOUR_US + 600)]


def test_an_hour_whose_items_all_left_has_the_newest_event_of_what_joined() -> None:
    before = [HourRows("BTC-USD", HOUR_US, 10, HOUR_US + 500)]
    joined, left = judged("suspect", "new", 1, HOUR_US + 400), judged("item", "conflict", 10, HOUR_US + 500)
    for verdicts in ([joined, left], [left, joined]):
        assert after_verdicts(before, verdicts) == [HourRows("BTC-USD", HOUR_US, 1, HOUR_US + 400)]


def test_an_hour_of_nothing_new_is_not_touched() -> None:
    before = [HourRows("BTC-USD", HOUR_US, 10, HOUR_US + 500)]
    assert after_verdicts(before, [judged("item", "already_here", 10, HOUR_US + 500)]) == []


def test_where_the_newest_event_is_not_new_the_rows_are_asked() -> None:
    before = [HourRows("BTC-USD", HOUR_US, 10, HOUR_US + 500)]
    assert after_verdicts(before, [judged("item", "conflict", 1, HOUR_US + 500)]) is None


@given(
    st.lists(
        st.tuples(st.integers(-50, 5000), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1
    )
)
def test_a_few_spans_hold_all_that_many_held(spans: list[tuple[int, int]]) -> None:
    few = silver_pack.covering(spans)
    assert len(few) <= 32
    assert few == sorted(few)
    assert all(any(low <= first and last <= high for low, high in few) for first, last in spans)
    assert {low for low, _ in few} <= {low for low, _ in spans}
    assert {high for _, high in few} <= {high for _, high in spans}


def test_a_block_of_items_says_its_lowest_and_highest_id() -> None:
    lines = pa.Table.from_batches(list(silver_pack.packer(TRADES)(iter([MESSAGES])))).to_pylist()
    ids = {line["kind"]: (line["tally_first"], line["tally_last"]) for line in lines if line["block"] is not None}
    assert ids == {"item": (2, 3), "suspect": (None, None), "rejected": (None, None)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (TRADES, ("`product_id`", "to_date(event_ts)", "trade_id")),
        (QUOTES, ("`product_id`", "to_date(event_ts)", "event_ts")),
        (PRICES, ("`source`", "to_date(last_updated)", "asset_id", "last_updated")),
        (CANDLES, ("`product_id`", "`interval`", "open_ts")),
    ],
    ids=lambda one: one.table.name if isinstance(one, Source) else "",
)
def test_the_order_of_files_is_partitions_then_the_tables_own(source: Source, expected: tuple[str, ...]) -> None:
    assert source.file_order == expected


def test_candles_lie_in_the_order_of_their_partitions() -> None:
    rows = [
        (product, interval, INGESTED.replace(day=day))
        for day in (3, 1, 2)
        for interval in ("5m", "1m")
        for product in ("ETH-USD", "BTC-USD")
    ]
    batch = pa.table(
        dict(zip(("product_id", "interval", "open_ts"), zip(*rows, strict=True), strict=True))
    ).to_batches()
    found = [tuple(row.values()) for some in silver_pack.sorted_as_files(CANDLES, batch) for row in some.to_pylist()]
    assert found == sorted(rows)
