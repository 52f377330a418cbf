"""Rejected items tried again: parsed from bronze by today's parser, inserted where they pass, and then no longer kept.

The order is that of every writer of silver: rejected rows first, then the one commit of accepted rows, and only then
are the rows that passed deleted from silver.rejected. A crash in between leaves rows that the next run finds already
here, and deletes. The commit names the rows it is about, so that it is not made twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.reasons import Reason
from marketflow.contracts.silver import REJECTED
from marketflow.errors import LakeStateError
from marketflow.lake import silver_dedupe, silver_pack, silver_parse, silver_snapshots, watermark
from marketflow.lake.accounting import Accounting
from marketflow.lake.session import table_name
from marketflow.lake.silver_batch import Batch, hours_of, newest_of, touched_of
from marketflow.lake.silver_commit import append_accepted, copy_accounting, insert_rejected
from marketflow.lake.silver_dedupe import CONFLICT, DUPLICATE, HERE, NEW
from marketflow.lake.silver_sources import LINEAGE, Source
from marketflow.settings import Settings
from marketflow.warehouse.locks import table_lock

Lineage = tuple[str, int, int, int]
Place = tuple[str, int, int]
# rejected rows judged in one go, on the driver
_PAGE = 20_000
_WHOLE = -1


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did to one table's rejected rows."""

    table: str
    tried: int = 0
    inserted: int = 0
    duplicate: int = 0
    no_longer_data: int = 0
    still_rejected: int = 0

    def __add__(self, other: Redriven) -> Redriven:
        names = ("tried", "inserted", "duplicate", "no_longer_data", "still_rejected")
        return Redriven(self.table, *(getattr(self, name) + getattr(other, name) for name in names))

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.tried} tried, {self.inserted} rows inserted, {self.duplicate} duplicates, "
            f"{self.no_longer_data} are no data any more, {self.still_rejected} still rejected"
        )


@dataclass(slots=True)
class Verdicts:
    """What today's parser and the table say about the messages of one page, by lineage."""

    refused: set[Lineage] = field(default_factory=set)
    judged: dict[Lineage, str] = field(default_factory=dict)
    by_message: dict[Place, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_message = {}
        for lineage, verdict in self.judged.items():
            self.by_message.setdefault(lineage[:3], []).append(verdict)

    def items_of(self, kept: Lineage) -> list[str]:
        """Verdicts on the items that a rejected row stands for: its own, or all of its message."""
        if kept[3] != _WHOLE:
            return [self.judged[kept]] if kept in self.judged else []
        return self.by_message.get(kept[:3], [])

    def stays(self, kept: Lineage) -> bool:
        """Whether the rejected row is as true as before."""
        whole = (*kept[:3], _WHOLE)
        return kept in self.refused or whole in self.refused or self.judged.get(kept) == CONFLICT


def redrive_source(
    spark: SparkSession, settings: Settings, source: Source, *, reason: str | None, since: datetime | None
) -> Redriven:
    """All of one table's rejected rows (of that reason, rejected since then), page by page."""
    with table_lock(settings, source.table.qualified):
        copy_accounting(spark, settings, source)
        done = Redriven(source.table.qualified)
        for page in _pages(spark, settings, source, reason, since):
            done += _redrive_page(spark, settings, source, page)
        copy_accounting(spark, settings, source)
    return done


def _pages(
    spark: SparkSession, settings: Settings, source: Source, reason: str | None, since: datetime | None
) -> Iterator[list[Row]]:
    """Lineage and time of the rejected rows, in the order of their lineage."""
    silver_snapshots.java_table(spark, table_name(settings, REJECTED))
    rows = spark.table(table_name(settings, REJECTED)).where(f.col("source_table") == source.table.qualified)
    if reason is not None:
        rows = rows.where(f.col("reason") == Reason(reason).value)
    if since is not None:
        rows = rows.where(f.col("rejected_at") >= f.lit(since))
    place = f.struct(*LINEAGE)
    wanted = rows.select(*LINEAGE, f.unix_micros("rejected_at").alias("rejected_us"))
    page = wanted.orderBy(*LINEAGE).limit(_PAGE).collect()
    while page:
        yield page
        last = f.struct(*(f.lit(page[-1][name]).cast(REJECTED.column(name).type.spark) for name in LINEAGE))
        page = wanted.where(place > last).orderBy(*LINEAGE).limit(_PAGE).collect()


def _redrive_page(spark: SparkSession, settings: Settings, source: Source, page: Sequence[Row]) -> Redriven:
    kept: list[Lineage] = [(row.topic, row.partition, row.offset, row.item_index) for row in page]
    parsed = silver_pack.parse_packed(_messages(spark, settings, source, page), source).persist()
    wanted = _wanted(spark, kept)
    try:
        # not cached: Spark would work it out anew after the append, since it reads the table that is appended to
        judged = _judged(spark, settings, source, parsed, wanted).localCheckpoint()
        places = {lineage[:3] for lineage in kept}
        _check_all_read(parsed, places, table_name(settings, source.bronze))
        verdicts = Verdicts(
            refused=set(_lineages(silver_pack.rejected(parsed, source, *LINEAGE))),
            judged={(r.topic, r.partition, r.offset, r.item_index): r.verdict for r in judged.collect()},
        )
        gone = [lineage for lineage in kept if not verdicts.stays(lineage)]
        if gone:
            _write(spark, settings, source, parsed, judged, verdicts, gone)
            _delete(spark, settings, gone, page)
        return _report(source, verdicts, kept, gone)
    finally:
        parsed.unpersist()


def _messages(spark: SparkSession, settings: Settings, source: Source, page: Sequence[Row]) -> DataFrame:
    """The bronze rows of the page's messages; rejected_at is bronze's ingested_at, which prunes."""
    places = sorted({(row.topic, row.partition, row.offset) for row in page})
    listed = spark.createDataFrame(places, "topic string, partition int, offset bigint")
    times = [row.rejected_us for row in page]
    in_time = f.expr(f"ingested_at between timestamp_micros({min(times)}) and timestamp_micros({max(times)})")
    name = table_name(settings, source.bronze)
    silver_snapshots.java_table(spark, name)
    return spark.table(name).where(in_time).join(f.broadcast(listed), ["topic", "partition", "offset"], "left_semi")


def _wanted(spark: SparkSession, kept: Sequence[Lineage]) -> DataFrame:
    ddl = "topic string, partition int, offset bigint, kept_index int"
    return spark.createDataFrame(list(kept), ddl)


def _judged(spark: SparkSession, settings: Settings, source: Source, parsed: DataFrame, wanted: DataFrame) -> DataFrame:
    """The items that the rejected rows stand for, held against the table."""
    items = silver_pack.items(parsed, source, silver_parse.ITEM, silver_parse.SUSPECT)
    same = [items[name] == wanted[name] for name in LINEAGE[:3]]
    stands_for = (wanted["kept_index"] == _WHOLE) | (wanted["kept_index"] == items["item_index"])
    asked = items.join(f.broadcast(wanted), [*same, stands_for], "left_semi")
    ranges = parsed.where(f.col("kind") == silver_parse.ID_TALLY).select("tally_name", "tally_first", "tally_last")
    looked_up = silver_dedupe.union(silver_dedupe.id_range(*row) for row in ranges.collect())
    name = table_name(settings, source.table)
    silver_snapshots.java_table(spark, name)
    stored = spark.table(name).where(silver_dedupe.within(source, looked_up))
    return silver_dedupe.classify(source, asked, stored)


def _check_all_read(parsed: DataFrame, places: set[Place], name: str) -> None:
    runs = parsed.where(f.col("kind") == silver_parse.OFFSET_TALLY).agg(f.sum("tally_count").alias("messages")).first()
    read = int(runs.messages or 0) if runs is not None else 0
    if read != len(places):
        raise LakeStateError(
            f"{name} holds {read} of the {len(places)} messages that silver.rejected names; nothing was changed"
        )


def _lineages(rows: DataFrame) -> Iterator[Lineage]:
    for row in rows.select(*LINEAGE).collect():
        yield row.topic, row.partition, row.offset, row.item_index


def _write(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    parsed: DataFrame,
    judged: DataFrame,
    verdicts: Verdicts,
    gone: Sequence[Lineage],
) -> None:
    """New rejected rows of messages that parse now but not wholly, then the commit."""
    opened = {lineage[:3] for lineage in gone if lineage[3] == _WHOLE}
    refused_now = [lineage for lineage in verdicts.refused if lineage[:3] in opened]
    refused_now += [li for li, verdict in verdicts.judged.items() if verdict == CONFLICT and li[:3] in opened]
    if refused_now:
        insert_rejected(spark, settings, _refused_rows(spark, settings, source, parsed, judged, refused_now))
    accepted = judged.where(f.col("verdict") == NEW).select(*source.table.column_names)
    hours = hours_of(source, accepted)
    digest = hashlib.sha256(repr(sorted(gone)).encode()).hexdigest()
    name = table_name(settings, source.table)
    table = silver_snapshots.java_table(spark, name)
    if not hours and any(s.properties.get(watermark.REDRIVEN) == digest for s in silver_snapshots.walk(table)):
        return  # a run that was ended before it deleted has committed this
    mark = watermark.of_table(table, name)
    more = {watermark.REDRIVEN: digest} | ({watermark.BACKFILLED: "redrive"} if mark is None else {})
    accounting = _change(verdicts, gone, len(refused_now), sum(hour.rows for hour in hours))
    accounting.check(f"{source.table.qualified}, redrive")
    batch = Batch(accepted.coalesce(1), judged, accounting, touched_of(hours), newest_of(hours))
    append_accepted(spark, settings, source, batch, mark, more)


def _refused_rows(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    parsed: DataFrame,
    judged: DataFrame,
    refused_now: Sequence[Lineage],
) -> DataFrame:
    """Rows of silver.rejected for these items; the bytes are those of the row of the whole message."""
    table = f.lit(source.table.qualified)
    refused = silver_pack.rejected(parsed, source).select(*LINEAGE, "reason", "detail")
    conflicts = judged.where(f.col("verdict") == CONFLICT).select(
        *LINEAGE, f.lit(Reason.CONFLICTING_DUPLICATE.value).alias("reason"), f.col("conflict").alias("detail")
    )
    listed = spark.createDataFrame(list(refused_now), "topic string, partition int, offset bigint, item_index int")
    chosen = refused.unionByName(conflicts).join(f.broadcast(listed), list(LINEAGE), "left_semi")
    whole = spark.table(table_name(settings, REJECTED)).where(f.col("item_index") == _WHOLE)
    beside = whole.drop("item_index", "reason", "detail", "source_table")
    rows = chosen.join(beside, list(LINEAGE[:3])).withColumn("source_table", table).select(*REJECTED.column_names)
    return rows.localCheckpoint()  # a MERGE may not read the table it writes through another plan


def _change(verdicts: Verdicts, gone: Sequence[Lineage], refused_now: int, inserted: int) -> Accounting:
    """What the commit changes in the sums. A row whose item is already here was never counted as rejected."""
    counted = [lineage for lineage in gone if HERE not in verdicts.items_of(lineage)]
    duplicate = sum(verdicts.items_of(lineage).count(DUPLICATE) for lineage in counted)
    parsed_places = {li[:3] for li in verdicts.judged} | {li[:3] for li in verdicts.refused}
    opened = [lineage for lineage in counted if lineage[3] == _WHOLE]
    emptied = {lineage[:3] for lineage in counted if lineage[3] != _WHOLE and lineage[:3] not in parsed_places}
    now_parsed = sum(lineage[:3] in parsed_places for lineage in opened)
    rejected = refused_now - len(counted)
    return Accounting(
        ignored=len(opened) - now_parsed + len(emptied),
        parsed=now_parsed - len(emptied),
        unparseable=-len(opened),
        items=inserted + duplicate + rejected,
        accepted=inserted,
        duplicate=duplicate,
        rejected=rejected,
    )


def _delete(spark: SparkSession, settings: Settings, gone: Sequence[Lineage], page: Sequence[Row]) -> None:
    """Take rows that passed out of silver.rejected."""
    name = table_name(settings, REJECTED)
    times = [row.rejected_us for row in page]
    with table_lock(settings, REJECTED.qualified):
        ddl = "topic string, partition int, offset bigint, item_index int"
        spark.createDataFrame(list(gone), ddl).createOrReplaceTempView(_VIEW)
        same = " and ".join(f"kept.`{column}` = gone.`{column}`" for column in LINEAGE)
        spark.sql(
            f"merge into {name} kept using {_VIEW} gone on {same} "
            f"and kept.rejected_at between timestamp_micros({min(times)}) and timestamp_micros({max(times)}) "
            "when matched then delete"
        )
        spark.catalog.dropTempView(_VIEW)


_VIEW = "marketflow_redriven_items"


def _report(source: Source, verdicts: Verdicts, kept: Sequence[Lineage], gone: Sequence[Lineage]) -> Redriven:
    found: list[Any] = [verdict for lineage in gone for verdict in verdicts.items_of(lineage)]
    return Redriven(
        source.table.qualified,
        tried=len(kept),
        inserted=found.count(NEW),
        duplicate=found.count(DUPLICATE),
        no_longer_data=sum(not verdicts.items_of(lineage) for lineage in gone),
        still_rejected=len(kept) - len(gone),
    )
