"""One batch of silver, worked out and not yet written: what is accepted, what is rejected, and the balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.reasons import Reason
from marketflow.contracts.silver import REJECTED
from marketflow.errors import LakeStateError
from marketflow.lake import silver_dedupe, silver_pack, silver_parse
from marketflow.lake.accounting import Accounting
from marketflow.lake.session import table_name
from marketflow.lake.silver_dedupe import CONFLICT, DUPLICATE, HERE, NEW, IdRange, Suspects
from marketflow.lake.silver_read import Chunk, check_complete, from_us
from marketflow.lake.silver_sources import LINEAGE, Source
from marketflow.settings import Settings

# below this, one file a partition of the table is worth more than the second core
_ONE_TASK_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch ready to be committed. The frames are cached: reading them again gives the same rows."""

    accepted: DataFrame
    rejected: DataFrame
    accounting: Accounting
    touched: dict[str, list[datetime]]
    newest_event_at: datetime | None
    # whether each task of `accepted` has its rows in the order of the table's files
    in_file_order: bool = False


@dataclass(frozen=True, slots=True)
class HourRows:
    """How many rows a product has in the hour that starts at `hour_us`, and its newest event, in µs."""

    product: str
    hour_us: int
    rows: int
    newest_us: int


@dataclass(frozen=True, slots=True)
class Tallies:
    """What the parser counted."""

    messages: Counter[str]
    items: int
    runs: list[tuple[str, int, int, int]]
    ids: list[IdRange]
    suspects: int
    rejected: int
    hours: list[HourRows]

    @property
    def ignored_by_name(self) -> dict[str, int]:
        """Messages ignored, by name."""
        return {
            name.removeprefix("ignored:"): count
            for name, count in sorted(self.messages.items())
            if name.startswith("ignored:")
        }


@contextmanager
def worked_out(
    spark: SparkSession, settings: Settings, source: Source, bronze: DataFrame, chunk: Chunk
) -> Iterator[Batch]:
    """Parse and judge the chunk's messages; the frames live as long as the context.

    Raises:
        LakeStateError: a message was not read or was read twice, or the balance does not hold.
    """
    with ExitStack() as held:
        parsed = silver_pack.parse_packed(bronze.where(chunk.contains()), source).persist()
        held.callback(parsed.unpersist)
        tallies = collect_tallies(parsed)
        check_complete(chunk, tallies.runs, table_name(settings, source.bronze))
        stored = spark.table(table_name(settings, source.table))
        suspects = silver_dedupe.suspects_of(source, tallies.ids, stored)
        is_large = sum(hour.rows for hour in tallies.hours) >= _ONE_TASK_ROWS
        if is_large:
            accepted = silver_pack.items_in_file_order(parsed, source)
        else:
            accepted = silver_pack.items(parsed, source, silver_parse.ITEM)
        judged, verdicts, hours = None, Counter[str](), tallies.hours
        if tallies.suspects or suspects:
            # not cached: Spark would work it out anew after the append, since it reads the table that is appended to
            judged = _judged(source, parsed, tallies, suspects, stored).localCheckpoint()
            # a quote without sequence makes a comparison of sequences null, which is neither suspect nor its contrary
            others = accepted.where(~f.coalesce(suspects.condition(source), f.lit(False))) if suspects else accepted
            columns = source.table.column_names
            new = judged.where(f.col("verdict") == NEW).select(*columns)
            accepted = others.select(*columns).unionByName(_in_file_order(source, new) if is_large else new)
            counted = _verdicts_by_hour(source, judged)
            for row in counted:
                verdicts[row.verdict] += row["rows"]
            set_apart = sum(row["rows"] for row in counted if row.kind == silver_parse.SUSPECT)
            if set_apart != tallies.suspects:
                raise LakeStateError(f"{set_apart} of {tallies.suspects} suspects were judged; nothing was committed")
            corrected = after_verdicts(hours, counted)
            hours = hours_of(source, accepted) if corrected is None else corrected
        inserted = sum(hour.rows for hour in hours)
        accepted = accepted.select(*source.table.column_names)
        one_task = inserted < _ONE_TASK_ROWS
        yield Batch(
            accepted.coalesce(1) if one_task else accepted,
            rejected_rows(source, parsed, judged if verdicts[CONFLICT] else None, bronze, chunk),
            _balance(tallies, verdicts, inserted, chunk, source),
            touched_of(hours),
            newest_of(hours),
            in_file_order=is_large and not one_task,
        )


def _in_file_order(source: Source, rows: DataFrame) -> DataFrame:
    return rows.sortWithinPartitions(*map(f.expr, source.file_order))


def _judged(source: Source, parsed: DataFrame, tallies: Tallies, suspects: Suspects, stored: DataFrame) -> DataFrame:
    """All suspects with their verdict: those that the parser set apart, and the items whose id another batch has."""
    asked = silver_pack.items(parsed, source, silver_parse.SUSPECT)
    if suspects:
        spans = [(one.low, one.high) for one in suspects.ranges] + [(number, number) for number in suspects.ids]
        met = silver_pack.items(parsed, source, silver_parse.ITEM, spans=spans).where(suspects.condition(source))
        asked = asked.unionByName(met) if tallies.suspects else met
    return silver_dedupe.classify(source, asked, stored.where(silver_dedupe.within(source, suspects.stored)))


def _verdicts_by_hour(source: Source, judged: DataFrame) -> list[Row]:
    """Rows per product, event hour, kind and verdict."""
    event = f.col(source.event_column)
    product, hour = f.col(source.touched_by).alias("product"), f.unix_micros(f.date_trunc("HOUR", event))
    return (
        judged.groupBy(product, hour.alias("hour_us"), "kind", "verdict")
        .agg(f.count("*").alias("rows"), f.max(f.unix_micros(event)).alias("newest_us"))
        .collect()
    )


def after_verdicts(hours: list[HourRows], judged: list[Row]) -> list[HourRows] | None:
    """The hours of items without those that were judged not new, and with the suspects that are.

    None where one that is not new has its hour's newest event: the rows themselves must be asked then.
    """
    found = {(hour.product, hour.hour_us): hour for hour in hours}
    # what leaves an hour before what joins it
    for row in sorted(judged, key=lambda row: row.kind == silver_parse.SUSPECT):
        where = (row.product, row.hour_us)
        if row.kind == silver_parse.ITEM and row.verdict != NEW:
            left = replace(found[where], rows=found[where].rows - row["rows"])
            if left.rows and row.newest_us == left.newest_us:
                return None
            found[where] = left
        elif row.kind == silver_parse.SUSPECT and row.verdict == NEW:
            before = found.get(where, HourRows(*where, 0, row.newest_us))
            newest = max(before.newest_us, row.newest_us) if before.rows else row.newest_us
            found[where] = replace(before, rows=before.rows + row["rows"], newest_us=newest)
    return [hour for hour in found.values() if hour.rows]


_JUDGED = ("verdict", "conflict")


def collect_tallies(parsed: DataFrame) -> Tallies:
    """The tallies of all tasks; the first read of the parsed frame."""
    rows = parsed.select(
        "kind", "rows", "topic", "partition", "tally_name", "tally_count", "tally_first", "tally_last"
    ).collect()
    counted: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    hours: dict[tuple[str, int], HourRows] = {}
    runs, ids = [], []
    for row in rows:
        if row.kind not in silver_parse.TALLIES:
            blocks[row.kind] += row["rows"]
        elif row.kind == silver_parse.MESSAGE_TALLY:
            messages[row.tally_name] += row.tally_count
        elif row.kind == silver_parse.OFFSET_TALLY:
            runs.append((row.topic, row.partition, row.tally_first, row.tally_last))
        elif row.kind == silver_parse.ID_TALLY:
            ids.append(silver_dedupe.id_range(row.tally_name, row.tally_first, row.tally_last))
        elif row.kind == silver_parse.HOUR_TALLY:
            where = (row.tally_name, row.tally_first)
            before = hours.get(where, HourRows(*where, 0, row.tally_last))
            newest = max(before.newest_us, row.tally_last)
            hours[where] = replace(before, rows=before.rows + row.tally_count, newest_us=newest)
        else:
            counted[row.kind] += row.tally_count
    _check_blocks(blocks, counted, sum(hour.rows for hour in hours.values()))
    return Tallies(
        messages,
        counted[silver_parse.ITEM_TALLY],
        runs,
        ids,
        counted[silver_parse.SUSPECT_TALLY],
        counted[silver_parse.REJECTED_TALLY],
        list(hours.values()),
    )


def _check_blocks(blocks: Counter[str], counted: Counter[str], items: int) -> None:
    """Hold the rows that the blocks say they have against what was counted where they were parsed."""
    expected = {
        silver_parse.ITEM: items,
        silver_parse.SUSPECT: counted[silver_parse.SUSPECT_TALLY],
        silver_parse.REJECTED: counted[silver_parse.REJECTED_TALLY],
    }
    if any(blocks[kind] != rows for kind, rows in expected.items()):
        raise LakeStateError(f"the parser counted {expected}, its blocks hold {dict(blocks)}; nothing was committed")


def hours_of(source: Source, accepted: DataFrame) -> list[HourRows]:
    """Rows per product and event hour, asked of the rows."""
    event = f.col(source.event_column)
    rows = (
        accepted.groupBy(
            f.col(source.touched_by).alias("product"), f.unix_micros(f.date_trunc("HOUR", event)).alias("hour_us")
        )
        .agg(f.count("*").alias("rows"), f.max(f.unix_micros(event)).alias("newest_us"))
        .collect()
    )
    return [HourRows(row.product, row.hour_us, row["rows"], row.newest_us) for row in rows]


def newest_of(hours: list[HourRows]) -> datetime | None:
    """The newest event of all the hours."""
    return max((from_us(row.newest_us) for row in hours), default=None)


def touched_of(hours: list[HourRows]) -> dict[str, list[datetime]]:
    """Product to its sorted hours."""
    touched: dict[str, list[datetime]] = {}
    for row in sorted(hours, key=lambda row: (row.product, row.hour_us)):
        touched.setdefault(row.product, []).append(from_us(row.hour_us))
    return touched


def rejected_rows(
    source: Source, parsed: DataFrame, judged: DataFrame | None, bronze: DataFrame, chunk: Chunk
) -> DataFrame:
    """All refused items as rows of silver.rejected; a conflicting item gets its bytes from bronze again."""
    refused = silver_pack.rejected(parsed, source).withColumns(
        {"source_table": f.lit(source.table.qualified), "rejected_at": f.col("ingested_at")}
    )
    columns = REJECTED.column_names
    if judged is None:
        return refused.select(*columns)
    place = LINEAGE[:3]
    conflicts = judged.where(f.col("verdict") == CONFLICT).select(*LINEAGE, "conflict")
    messages = bronze.where(chunk.contains()).select(
        *place, "venue", "channel", "received_at", "value", f.col("ingested_at").alias("rejected_at")
    )
    contradicting = messages.join(conflicts, list(place), "inner").withColumns(
        {
            "source_table": f.lit(source.table.qualified),
            "reason": f.lit(Reason.CONFLICTING_DUPLICATE.value),
            "detail": f.col("conflict"),
        }
    )
    return refused.select(*columns).unionByName(contradicting.select(*columns))


def _balance(tallies: Tallies, verdicts: Counter[str], inserted: int, chunk: Chunk, source: Source) -> Accounting:
    accounting = Accounting(
        messages=chunk.messages,
        ignored=sum(tallies.ignored_by_name.values()),
        parsed=tallies.messages["parsed"],
        unparseable=tallies.messages["unparseable"],
        items=tallies.items,
        accepted=inserted + verdicts[HERE],
        duplicate=verdicts[DUPLICATE],
        rejected=tallies.rejected + verdicts[CONFLICT],
        already_here=verdicts[HERE],
        ignored_by_name=tallies.ignored_by_name,
        first_offsets=chunk.first,
        next_offsets=chunk.after,
    )
    accounting.check(f"{source.table.qualified}, batch {chunk.first} to {chunk.after}")
    return accounting
