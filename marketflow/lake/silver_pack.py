"""The parser's output on its way through Spark: one row a block of items, which is what a batch of silver keeps.

A batch is read three times: for its tallies, for what it repeats, and for the write. Kept row by row, Spark would turn
a million items into its own columns first and back again each time; kept as blocks (Arrow's stream format, lz4), they
stay as the parser made them, and a reader opens the blocks and columns that it needs. Tallies stay rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from marketflow.contracts.columns import Column, Type
from marketflow.errors import LakeStateError
from marketflow.features.frames import ARROW_TYPES
from marketflow.lake import conversion, silver_parse
from marketflow.lake.silver_read import any_of
from marketflow.lake.silver_sources import Source

BLOCK = (
    Column("rows", Type.LONG, "rows of the block", nullable=True),
    Column("block", Type.BINARY, "the rows, in Arrow's stream format", nullable=True),
)  # and of a block of items, its lowest and highest id in tally_first and tally_last
_LINES = (conversion.KIND, *BLOCK, *conversion.TALLY)
Span = tuple[int, int]
Choice = Callable[[pa.RecordBatch], pa.RecordBatch]
Batches = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
# rows of one batch that a worker hands back to Spark
_HANDED_BACK = 20_000
_DAY_US = 86_400_000_000
# of a filter on blocks
_MOST_SPANS = 32
# of a block before compression: a rejected page comes once for each of its items, and a block is one value to Spark
_MOST_BYTES = 8_000_000
_WRITING = pa.ipc.IpcWriteOptions(compression="lz4")


def packed_columns(source: Source) -> tuple[Column, ...]:
    """Columns of a packed frame; a tally of offsets names its topic and partition."""
    return (*_LINES, source.table.column("topic"), source.table.column("partition"))


def parse_packed(bronze: DataFrame, source: Source) -> DataFrame:
    """The bronze rows parsed: a row a block, and a row a tally."""
    ddl = ", ".join(f"`{column.name}` {column.type.spark}" for column in packed_columns(source))
    return bronze.select(*silver_parse.BRONZE_COLUMNS).mapInArrow(packer(source), ddl)


def packer(source: Source) -> Batches:
    """The function that Spark runs in its workers: the parser, and its batches as blocks."""
    parse = silver_parse.parser(source)
    schema = pa.schema([(column.name, ARROW_TYPES[column.type]) for column in packed_columns(source)])

    def pack(messages: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in parse(messages):
            if batch.column("kind")[0].as_py() in silver_parse.TALLIES:
                columns = {name: batch.column(name) for name in schema.names if name in batch.schema.names}
                yield conversion.batch(schema, batch.num_rows, columns)
            else:
                rows = max(1, batch.num_rows * _MOST_BYTES // max(batch.nbytes, 1))
                for first in range(0, batch.num_rows, rows):
                    yield conversion.batch(schema, 1, _block(source, batch.slice(first, rows)))

    return pack


def _block(source: Source, batch: pa.RecordBatch) -> dict[str, list[object]]:
    kind = batch.column("kind")[0].as_py()
    kept = batch.select(_stored_names(source, kind))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, kept.schema, options=_WRITING) as stream:
        stream.write_batch(kept)
    block: dict[str, list[object]] = {"kind": [kind], "rows": [batch.num_rows]}
    block["block"] = [sink.getvalue().to_pybytes()]
    if kind == silver_parse.ITEM:
        ids = silver_parse.record_ids(source, batch)
        block |= {"tally_first": [int(ids.min())], "tally_last": [int(ids.max())]}
    return block


def _stored_names(source: Source, kind: str) -> list[str]:
    """Columns that a block of this kind holds; the others are null in every row of it."""
    if kind == silver_parse.REJECTED:
        return [column.name for column in conversion.rejected_columns(source)]
    return ["kind", *source.table.column_names, "ingested_at"]


def items(packed: DataFrame, source: Source, *kinds: str, spans: Sequence[Span] | None = None) -> DataFrame:
    """The items of these kinds (item, suspect), with `kind` and `ingested_at` beside the table's columns.

    With `spans` only those whose id lies in one of them, whatever their group; blocks that meet none stay shut.
    """
    columns = (conversion.KIND, *source.table.columns, conversion.INGESTED_AT)
    chosen = partial(within_spans, source, spans) if spans is not None else None
    blocks = packed.where(f.col("kind").isin(*kinds))
    if spans is not None:
        meets = [(f.col("tally_first") <= high) & (f.col("tally_last") >= low) for low, high in covering(spans)]
        blocks = blocks.where(f.col("tally_first").isNull() | any_of(meets))
    return _unpack(blocks, _stored_names(source, silver_parse.ITEM), columns, chosen)


def covering(spans: Sequence[Span]) -> list[Span]:
    """A few spans that hold all of these; a filter of a thousand would cost Spark more to plan than it saves."""
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    step = -(-len(merged) // _MOST_SPANS) or 1
    return [(merged[at][0], merged[min(at + step, len(merged)) - 1][1]) for at in range(0, len(merged), step)]


def items_in_file_order(packed: DataFrame, source: Source) -> DataFrame:
    """The table's columns of all items, in each task in the order that the table's files have: partition, then key.

    Spark's own sort of rows was 43 % of a write (docs/decisions/0006). The memory that this sort takes is a worker's.
    """
    stored = _stored_names(source, silver_parse.ITEM)
    names, table = source.table.column_names, source.table
    open_blocks = opener(stored, names)

    def in_order(lines: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from sorted_as_files(source, list(open_blocks(lines)))

    ddl = ", ".join(f"`{column.name}` {column.type.spark}" for column in table.columns)
    blocks = packed.where(f.col("kind") == silver_parse.ITEM).select("rows", "block")
    return blocks.mapInArrow(in_order, ddl)


def sorted_as_files(source: Source, batches: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of all batches in the order of the table's files."""
    if not batches:
        return
    rows = pa.Table.from_batches(batches)
    keys = pa.table({part: _partition(rows, part) for part in source.table.partitioning})
    for name in source.table.sort_order:
        keys = keys.append_column(f"by_{name}", rows.column(name))
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    for first in range(0, len(order), _HANDED_BACK):
        yield from rows.take(order.slice(first, _HANDED_BACK)).combine_chunks().to_batches()


def _partition(rows: pa.Table, transform: str) -> pa.ChunkedArray:
    """What the rows are partitioned by: a column itself, or `days(column)`."""
    column = transform.removeprefix("days(").removesuffix(")")
    values = rows.column(column)
    return values if column == transform else pc.divide(values.cast(pa.int64()), _DAY_US)


def rejected(packed: DataFrame, source: Source, *names: str) -> DataFrame:
    """The rejected items, with `ingested_at`; of these columns, where some are named."""
    columns = [column for column in conversion.rejected_columns(source) if not names or column.name in names]
    stored = _stored_names(source, silver_parse.REJECTED)
    return _unpack(packed.where(f.col("kind") == silver_parse.REJECTED), stored, columns)


def within_spans(source: Source, spans: Sequence[Span], batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows whose id lies in one of the spans (low, high; both included; they may overlap)."""
    lows, highs = (np.array(edge, np.int64) for edge in zip(*sorted(spans), strict=True))
    highs = np.maximum.accumulate(highs)
    ids = silver_parse.record_ids(source, batch)
    # the last span that begins at or below an id, and the highest end of all that begin there or before
    before = np.searchsorted(lows, ids, "right") - 1
    return batch.filter(pa.array((before >= 0) & (ids <= highs[before])))


def _unpack(
    blocks: DataFrame, stored: Sequence[str], columns: Sequence[Column], chosen: Choice | None = None
) -> DataFrame:
    ddl = ", ".join(f"`{column.name}` {column.type.spark}" for column in columns)
    return blocks.select("rows", "block").mapInArrow(opener(stored, [column.name for column in columns], chosen), ddl)


def opener(stored: Sequence[str], names: Sequence[str], chosen: Choice | None = None) -> Batches:
    """The function that Spark runs in its workers: blocks to the columns of these names, of the rows chosen.

    `stored` are the columns of the blocks; those that are not asked for are not decompressed.
    """
    wanted = list(names)
    fields = [stored.index(name) for name in wanted]

    def open_blocks(lines: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for some in lines:
            for promised, block in zip(some.column("rows").to_pylist(), some.column("block"), strict=True):
                reading = pa.ipc.IpcReadOptions(included_fields=fields)
                with pa.ipc.open_stream(block.as_buffer(), options=reading) as stream:
                    batch = stream.read_next_batch()
                if batch.num_rows != promised:
                    raise LakeStateError(f"a block of {promised} items holds {batch.num_rows}; nothing was committed")
                yield (chosen(batch) if chosen else batch).select(wanted)

    return open_blocks
