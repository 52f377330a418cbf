"""Bronze rows to typed items inside Spark's Python workers: `venues.parse` per message, Arrow in and out.

The output holds four kinds of rows, told apart by `kind`: items a table can take, suspects among them (their id occurs
more than once in a batch of messages), rejected items with their bytes, and tallies; a batch holds one kind, and all
tallies are in the last. A tally is a count made where the rows were read, so that the balance of a batch does not come
from the rows it is to judge: `message` (parsed, unparseable, ignored:<name>), `items`, `suspects`, `rejected_items`,
`offsets` (consecutive ones read), `ids` (a range of a group's) and `hour` (items but suspects, by product and hour).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Ignored, Outcome, Parsed, RejectedItem, Unparseable
from marketflow.lake import conversion, message_headers
from marketflow.lake.silver_sources import Source

BRONZE_COLUMNS = ("topic", "partition", "offset", "ingested_at", "headers", "value")
ITEM, SUSPECT, REJECTED = "item", "suspect", "rejected"
MESSAGE_TALLY, ITEM_TALLY, SUSPECT_TALLY, REJECTED_TALLY = "message", "items", "suspects", "rejected_items"
OFFSET_TALLY, ID_TALLY, HOUR_TALLY = "offsets", "ids", "hour"
TALLIES = (MESSAGE_TALLY, ITEM_TALLY, SUSPECT_TALLY, REJECTED_TALLY, OFFSET_TALLY, ID_TALLY, HOUR_TALLY)
_HOUR_US = 3_600_000_000
_MOST_GAPS = 15
# between the parts of a group's name in a tally; occurs in no identifier that a parser lets through
GROUP_SEPARATOR = "\x1f"


def parser(source: Source) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that Spark runs in its workers, one call a task."""

    def parse_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = _Task(source)
        # a batch makes many small objects and no cycle of them: looking for cycles costs a fifth of the time
        gc.disable()
        try:
            for messages in batches:
                if messages.num_rows:
                    yield from task.parse(messages)
            yield from task.rest()
        finally:
            gc.enable()

    return parse_batches


class _Task:
    """The state of one task: its counts."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.schema = conversion.output_schema(source)
        self.last: list[pa.RecordBatch] = []
        self.messages: Counter[str] = Counter()
        self.items = 0
        self.runs: list[tuple[str, int, int, int]] = []
        self.ids: list[tuple[str, int, int]] = []
        self.hours: list[tuple[str, int, int, int]] = []
        self.suspects = 0
        self.rejected = 0

    def parse(self, messages: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """One batch of messages to at most one batch of items; what is rejected or suspect is kept for the end."""
        self.runs.extend(offset_runs(messages))
        accepted, rejected = _Accepted(), _Rejected()
        accept, record, parsed, items = accepted.rows.append, self.source.record, 0, 0
        for position, headers, outcome in self._outcomes(messages):
            if type(outcome) is Parsed:
                parsed += 1
                found = outcome.items
                items += len(found)
                if len(found) == 1 and type(found[0]) is record:
                    accept((position, 0, headers, found[0]))
                    continue
                for index, item in enumerate(found):
                    if type(item) is record:
                        accept((position, index, headers, item))
                    else:
                        rejected.add(position, index, headers, *_refusal(self.source, item))
            elif isinstance(outcome, Ignored):
                self.messages[f"ignored:{outcome.name}"] += 1
            else:
                assert isinstance(outcome, Unparseable)
                self.messages["unparseable"] += 1
                items += 1
                rejected.add(position, -1, headers, outcome.reason, outcome.detail)
        self.messages.update({"parsed": parsed} if parsed else {})
        self.items += items
        self.rejected += len(rejected.positions)
        if rejected.positions:
            self.last.append(rejected.batch(self.schema, messages))
        if accepted.rows:
            yield from self._items(accepted.batch(self.source, self.schema, messages))

    def _outcomes(self, messages: pa.RecordBatch) -> Iterator[tuple[int, dict[str, str], Outcome]]:
        """Position, headers and what the venue's parser says; unparseable where a column's header is wrong."""
        stored, unread = message_headers.read(messages.column("headers").to_pylist())
        unfit, parse = message_headers.unfit(self.source, stored), venues.parse
        values = messages.column("value").to_pylist()
        for position, (headers, value) in enumerate(zip(stored, values, strict=True)):
            wrong = unread.get(position)
            outcome = parse(headers, value or b"") if wrong is None else Unparseable(Reason.BAD_HEADERS, wrong)
            if position in unfit and type(outcome) is Parsed:
                outcome = Unparseable(Reason.BAD_HEADERS, unfit[position])
            yield position, headers, outcome

    def _items(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The items, without those whose id occurs twice in this very batch: they go to the end, as suspects.

        Rows of one kind lie together at the end of a task's output, so that reading them alone decodes nothing else.
        """
        repeated = self._note_ids(batch)
        if not repeated.any():
            self.hours += hour_counts(self.source, batch)
            yield batch
            return
        names = batch.schema.names
        suspects = batch.filter(pa.array(repeated))
        self.suspects += suspects.num_rows
        kinds = pa.repeat(pa.scalar(SUSPECT), suspects.num_rows)
        self.last.append(suspects.set_column(names.index("kind"), "kind", kinds))
        if not repeated.all():
            once = batch.filter(pa.array(~repeated))
            self.hours += hour_counts(self.source, once)
            yield once

    def _note_ids(self, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Note the ranges of ids per group; returns which rows share group and id with another."""
        ids = record_ids(self.source, batch)
        repeated = np.zeros(len(ids), np.bool_)
        grouped = pc.dictionary_encode(
            pc.binary_join_element_wise(*(batch.column(name) for name in self.source.group), GROUP_SEPARATOR)
        )
        of_row = grouped.indices.to_numpy()
        for number, name in enumerate(grouped.dictionary.to_pylist()):
            rows = np.flatnonzero(of_row == number)
            distinct, inverse, counts = np.unique(ids[rows], return_inverse=True, return_counts=True)
            self.ids += [(name, low, high) for low, high in id_ranges(distinct)]
            repeated[rows] = (counts > 1)[inverse]
        return repeated

    def rest(self) -> Iterator[pa.RecordBatch]:
        """What was kept for the end, the rows of a kind together, then the tallies."""
        for kind in (SUSPECT, REJECTED):
            yield from (batch for batch in self.last if batch.column("kind")[0].as_py() == kind)
        yield self.tallies()

    def tallies(self) -> pa.RecordBatch:
        """All counts of the task."""
        rows: list[tuple[str, str | None, int | None, int | None, int | None, str | None, int | None]] = [
            (MESSAGE_TALLY, name, count, None, None, None, None) for name, count in self.messages.items()
        ]
        rows.append((ITEM_TALLY, None, self.items, None, None, None, None))
        rows += [(OFFSET_TALLY, None, last - first + 1, first, last, t, p) for t, p, first, last in self.runs]
        rows.append((SUSPECT_TALLY, None, self.suspects, None, None, None, None))
        rows.append((REJECTED_TALLY, None, self.rejected, None, None, None, None))
        rows += [(HOUR_TALLY, product, count, hour, newest, None, None) for product, hour, count, newest in self.hours]
        rows += [(ID_TALLY, name, None, low, high, None, None) for name, low, high in self.ids]
        names = ("kind", "tally_name", "tally_count", "tally_first", "tally_last", "topic", "partition")
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        return conversion.batch(self.schema, len(rows), columns)


class _Accepted:
    """Items on their way into the table: (position of the message, index in it, headers, record)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, dict[str, str], Any]] = []

    def batch(self, source: Source, schema: pa.Schema, messages: pa.RecordBatch) -> pa.RecordBatch:
        """The items as columns."""
        positions, indexes, all_headers, records = zip(*self.rows, strict=True)
        columns: dict[str, Any] = conversion.record_columns(source, records)
        for column, header in source.headers.items():
            values: list[Any] = [headers[header] for headers in all_headers]
            columns[column] = list(map(int, values)) if header in message_headers.TIMES else values
        columns |= conversion.lineage(messages, positions)
        columns["item_index"] = indexes
        columns["kind"] = pa.repeat(pa.scalar(ITEM), len(positions))
        return conversion.batch(schema, len(positions), columns)


class _Rejected:
    """Items on their way into silver.rejected, with the bytes of their message."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.rows: list[tuple[int, str, str, str | None, str | None, int | None]] = []

    def add(self, position: int, index: int, headers: dict[str, str], reason: Reason, detail: str) -> None:
        """One refused item of the message at `position`."""
        self.positions.append(position)
        received = message_headers.time_us(headers.get("received_at"))
        self.rows.append((index, reason.value, detail, headers.get("venue"), headers.get("channel"), received))

    def batch(self, schema: pa.Schema, messages: pa.RecordBatch) -> pa.RecordBatch:
        """The refused items as columns."""
        names = ("item_index", "reason", "detail", "venue", "channel", "received_at")
        columns: dict[str, Any] = dict(zip(names, map(list, zip(*self.rows, strict=True)), strict=True))
        columns |= conversion.lineage(messages, self.positions)
        columns["value"] = messages.column("value").take(pa.array(self.positions, pa.int64()))
        columns["kind"] = pa.repeat(pa.scalar(REJECTED), len(self.positions))
        return conversion.batch(schema, len(self.positions), columns)


def record_ids(source: Source, batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The integer that each row is found by within its group; what `source.id_sql` gives of the stored row."""
    if "trade_id" in source.fields:
        found = batch.column("trade_id")
    elif "sequence" in source.fields:
        found = pc.coalesce(batch.column("sequence"), batch.column("event_ts").cast(pa.int64()))
    else:
        found = batch.column(source.event_column).cast(pa.int64())
    return cast("np.ndarray[Any, np.dtype[np.int64]]", found.to_numpy(zero_copy_only=False))


def _refusal(source: Source, item: Any) -> tuple[Reason, str]:
    """Why an item of a parsed message is not for this table."""
    if isinstance(item, RejectedItem):
        return item.reason, item.detail
    return Reason.UNEXPECTED_SHAPE, f"a {type(item).__name__} does not belong in {source.table.qualified}"


def id_ranges(distinct: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[tuple[int, int]]:
    """Sorted ids as a few ranges, cut at their widest gaps: one old trade among new ones must not span all between."""
    gaps = np.diff(distinct)
    # unsigned, so that the distance of the lowest and highest 64-bit id does not overflow
    wide = np.flatnonzero(gaps.view(np.uint64) > max(100, len(distinct)))
    if len(wide) > _MOST_GAPS:
        wide = np.sort(wide[np.argsort(gaps.view(np.uint64)[wide])[-_MOST_GAPS:]])
    for part in np.split(distinct, wide + 1):
        yield int(part[0]), int(part[-1])


def hour_counts(source: Source, batch: pa.RecordBatch) -> Iterator[tuple[str, int, int, int]]:
    """(product, start of the hour, rows, newest event), times in µs, of the rows of a batch."""
    event_us = batch.column(source.event_column).cast(pa.int64())
    hour = pc.multiply(pc.divide(event_us, _HOUR_US), _HOUR_US)
    columns = {"product": batch.column(source.touched_by), "hour": hour, "event": event_us}
    found = pa.table(columns).group_by(["product", "hour"]).aggregate([("event", "count"), ("event", "max")])
    for row in found.to_pylist():
        yield row["product"], row["hour"], row["event_count"], row["event_max"]


def offset_runs(messages: pa.RecordBatch) -> Iterator[tuple[str, int, int, int]]:
    """(topic, partition, first, last) of consecutive offsets in the batch; a repeated offset starts a new run."""
    topics, partitions = messages.column("topic"), messages.column("partition").to_numpy()
    offsets = messages.column("offset").to_numpy()
    for topic in pc.unique(topics).to_pylist():
        of_topic = pc.equal(topics, topic).to_numpy(zero_copy_only=False)
        for partition in np.unique(partitions[of_topic]):
            found = np.sort(offsets[of_topic & (partitions == partition)])
            for run in np.split(found, np.flatnonzero(np.diff(found) != 1) + 1):
                yield topic, int(partition), int(run[0]), int(run[-1])
