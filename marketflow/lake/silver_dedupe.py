"""Which items are new, which are there already, and which contradict what is there.

Almost every item of a batch is new, and its id lies in a range that nothing else touches. The parser's tallies give
the ranges of ids it saw; where two overlap, or where the table has rows, an item is suspect. Suspects alone are sorted
and joined, so the cost follows the overlap (a reconnect, a heal, a replay) and not the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

from marketflow.lake.silver_parse import GROUP_SEPARATOR
from marketflow.lake.silver_read import any_of
from marketflow.lake.silver_sources import LINEAGE, Source

NEW, HERE, DUPLICATE, CONFLICT = "new", "already_here", "duplicate", "conflict"
# a condition with more ranges than this per group costs Spark more to plan than it saves to read
_MOST_RANGES = 16
# a range of so few ids is given to Spark id by id, as one set; and so many ranges at most
_FEW_IDS = 16
_MOST_NARROW = 1_000


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """Ids of one group (venue and product) from low to high, both included."""

    group: tuple[str, ...]
    low: int
    high: int


def id_range(name: str, low: int, high: int) -> IdRange:
    """From a tally's name of a group."""
    return IdRange(tuple(name.split(GROUP_SEPARATOR)), low, high)


def by_group(ranges: Iterable[IdRange]) -> dict[tuple[str, ...], list[IdRange]]:
    """Each group's ranges in order."""
    found: defaultdict[tuple[str, ...], list[IdRange]] = defaultdict(list)
    for one in sorted(ranges):
        found[one.group].append(one)
    return found


def union(ranges: Iterable[IdRange]) -> list[IdRange]:
    """The same ids in disjoint ranges, at most a few per group: the narrowest gaps are closed first."""
    result = []
    for group, ordered in by_group(ranges).items():
        merged: list[list[int]] = []
        for one in ordered:
            if merged and one.low <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], one.high)
            else:
                merged.append([one.low, one.high])
        while len(merged) > _MOST_RANGES:
            gaps = [after[0] - before[1] for before, after in pairwise(merged)]
            at = gaps.index(min(gaps))
            merged[at : at + 2] = [[merged[at][0], merged[at + 1][1]]]
        result += [IdRange(group, low, high) for low, high in merged]
    return result


def overlaps(ranges: Iterable[IdRange]) -> list[IdRange]:
    """Where two or more of the ranges meet: the only ids that can occur in both."""
    result = []
    for group, ordered in by_group(ranges).items():
        reached = ordered[0].high
        for one in ordered[1:]:
            if one.low <= reached:
                result.append(IdRange(group, one.low, min(reached, one.high)))
            reached = max(reached, one.high)
    return result


def within(source: Source, ranges: Sequence[IdRange]) -> Column:
    """Condition: the row's group and id lie in one of the ranges; written so that Iceberg can prune files by it."""
    conditions = []
    for group, ordered in by_group(ranges).items():
        same_group = [f.col(name) == f.lit(value) for name, value in zip(source.group, group, strict=True)]
        in_range = any_of([f.expr(source.id_in_range.format(low=one.low, high=one.high)) for one in ordered])
        condition = in_range
        for same in same_group:
            condition = same & condition
        conditions.append(condition)
    return any_of(conditions)


@dataclass(frozen=True, slots=True)
class Suspects:
    """Ids that two batches of messages share, or a batch and the table: one by one where few lie together.

    `stored` are the ranges that the table has rows in.
    """

    ids: frozenset[int]
    ranges: list[IdRange]
    stored: list[IdRange]

    def __bool__(self) -> bool:
        return bool(self.ids or self.ranges)

    def condition(self, source: Source) -> Column:
        """Whether an item is suspect. An id alone counts in every group: a suspect too many costs little."""
        in_ranges = within(source, self.ranges)
        if not self.ids:
            return in_ranges
        return in_ranges | f.expr(f"{source.id_sql} in ({', '.join(map(str, sorted(self.ids)))})")


def suspects_of(source: Source, ranges: Sequence[IdRange], stored: DataFrame) -> Suspects:
    """From the ranges that the parser saw, one or more a batch of messages, and the table."""
    there = stored_ranges(source, stored, union(ranges))
    shared = [*overlaps(ranges), *there]
    narrow = [one for one in shared if one.high - one.low < _FEW_IDS][:_MOST_NARROW]
    wide = set(shared).difference(narrow)
    ids = frozenset(number for one in narrow for number in range(one.low, one.high + 1))
    return Suspects(ids, union(wide), there)


def stored_ranges(source: Source, stored: DataFrame, ranges: Sequence[IdRange]) -> list[IdRange]:
    """The ids that the table has within the ranges, one range per group."""
    if not ranges:
        return []
    identity = f.expr(source.id_sql)
    rows = (
        stored.where(within(source, ranges))
        .groupBy(*source.group)
        .agg(f.min(identity).alias("low"), f.max(identity).alias("high"))
        .collect()
    )
    return [IdRange(tuple(row[name] for name in source.group), row.low, row.high) for row in rows]


def classify(source: Source, suspects: DataFrame, stored: DataFrame) -> DataFrame:
    """Suspects with `verdict` and `conflict`: new, already_here, duplicate or conflict (and the columns that differ).

    An item is held against the stored row of its key, or else against the first item of that key in the order
    (ingested_at, topic, partition, offset, item_index), which is new itself. The first wins.
    """
    keys = [f"_key_{number}" for number in range(len(source.key))]
    own = _facts(source, suspects, keys)
    first = Window.partitionBy(*keys).orderBy("ingested_at", *LINEAGE)
    ranked = own.withColumns({f"_first_{name}": f.first(f"_{name}").over(first) for name in ("content", "lineage")})
    there = _facts(source, stored, keys).select(
        *(f.col(key).alias(f"{key}_there") for key in keys),
        f.col("_content").alias("_content_there"),
        f.col("_lineage").alias("_lineage_there"),
    )
    same_key = [ranked[key].eqNullSafe(there[f"{key}_there"]) for key in keys]
    joined = ranked.join(there, same_key, "left")
    is_stored = f.col("_lineage_there").isNotNull()
    reference, origin = (
        f.when(is_stored, f.col(f"_{name}_there")).otherwise(f.col(f"_first_{name}")) for name in ("content", "lineage")
    )
    same = f.col("_content").eqNullSafe(reference)
    verdict = (
        f.when(is_stored & f.col("_lineage").eqNullSafe(f.col("_lineage_there")), HERE)
        .when(~is_stored & f.col("_lineage").eqNullSafe(f.col("_first_lineage")), NEW)
        .when(same, DUPLICATE)
        .otherwise(CONFLICT)
    )
    return joined.select(
        *suspects.columns,
        verdict.alias("verdict"),
        f.when(verdict == CONFLICT, _difference(source, reference, origin)).alias("conflict"),
    )


def _facts(source: Source, rows: DataFrame, keys: Sequence[str]) -> DataFrame:
    content = f.struct(*(f.expr(sql).alias(name) for name, sql in source.content.items()))
    lineage = f.struct(*LINEAGE)
    return rows.withColumns(
        {key: f.expr(sql) for key, sql in zip(keys, source.key, strict=True)}
        | {"_content": content, "_lineage": lineage}
    )


def _difference(source: Source, reference: Column, origin: Column) -> Column:
    names = [f.when(~f.col("_content")[name].eqNullSafe(reference[name]), f.lit(name)) for name in source.content]
    place = f.concat_ws("/", *(origin[name].cast("string") for name in LINEAGE))
    return f.concat(f.concat_ws(", ", *names), f.lit(" differ from the row that came first, of "), place)
