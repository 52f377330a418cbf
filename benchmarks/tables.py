"""The pages' figures, from benchmarks/results: `python -m benchmarks.tables` writes them between the pages' markers.

A test holds README and docs/performance.md to the results, so that no figure in them was typed by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_file import RESULTS
from marketflow.features.trades.catalogue import FEATURES, TARGETS
from marketflow.paths import PROJECT_FOLDER

README = PROJECT_FOLDER / "README.md"
PERFORMANCE = PROJECT_FOLDER / "docs" / "performance.md"
Result = dict[str, Any]


def load(name: str) -> Result:
    """One result file."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is not there: see docs/operations.md, Measuring")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def figures() -> str:
    """What the stack takes and how late its numbers are."""
    start, latency, idle = load("stack-start"), load("stack-latency"), load("stack-idle")
    silver, day, kernel, lake = load("silver"), load("day"), load("features"), load("features-lake")
    windows = load("features-windows")
    rows = [
        ("warm `make up` to the first live rows in PostgreSQL", f"{start['first_live_rows_s']:.0f} s"),
        ("poll to movers in PostgreSQL, p95", f"{latency['poll_to_movers']['ranked']['p95_s']:.1f} s"),
        ("trade received to bronze, p95 (a commit every 30 s)", f"{latency['trade_to_bronze']['p95_s']:.1f} s"),
        ("trade received to its bar in PostgreSQL, p95", f"{latency['trade_to_bar']['p95_s'] / 60:.1f} min"),
        (
            "trade received to its final feature row in PostgreSQL, p95",
            f"{latency['trade_to_final_features']['p95_s'] / 60:.1f} min",
        ),
        ("memory of all processes at the peak (PSS)", f"{latency['peak_memory_mib'] / 1024:.1f} GiB"),
        (
            "processor, exchange stopped, Dags at work, ten minutes' mean",
            f"{idle['percent_of_one_core']:.0f} % of one core",
        ),
        ("silver, a run of a million messages", f"{silver['messages_per_s']:,} messages/s"),
        (
            f"a day of {day['records']:,} records ({day['messages']:,} messages) through every layer",
            f"{day['seconds_in_all']:.0f} s",
        ),
        ("trade features, the kernel alone on both cores", f"{kernel['trades_per_s_two_cores']:,} trades/s"),
        (
            f"trade features into the lake, {lake['backlog']['trades']:,} trades of two products",
            f"{lake['backlog']['trades_per_s']:,} trades/s, "
            f"{windows['times_as_fast']['same_features']:.0f} times as fast as Spark's windows of rows",
        ),
        (
            f"trade features of an hour of {lake['busy_hour']['trades']:,} trades, written again",
            f"{lake['busy_hour']['seconds']:.0f} s",
        ),
    ]
    return table(("figure", "measured"), rows)


def kills() -> str:
    """What `kill -9` of each part costs."""
    rows = [
        (
            f"`{kill['victim']}`",
            f"{kill['seconds_to_heal']:.0f} s",
            "clean" if kill["verify"]["exit_status"] == 0 else "NOT clean",
            _holes(kill["holes"]),
        )
        for kill in load("faults-smoke")["kills"]
    ]
    return table(("killed", "well again after", "`verify`", "known gaps by then"), rows)


def _holes(holes: list[Result]) -> str:
    missing = sum(hole["last_missing_id"] - hole["first_missing_id"] + 1 for hole in holes)
    return f"{len(holes)} ({missing:,} trades)" if holes else "none"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims() -> str:
    """What comparable projects claim, and what was measured here."""
    latency, day, feed, storage = load("stack-latency"), load("day"), load("feed"), load("storage")
    layers = storage["layers"]
    scanned = {
        name: one["one_product_and_day"] for name, one in storage["tables"].items() if one.get("one_product_and_day")
    }
    hour = load("orchestration-kills")["live"]
    rows = [
        (
            "10 messages a second for an hour",
            f"one feed process: {feed['full_speed']['messages_per_s']:,} messages/s for "
            f"{feed['full_speed']['messages']:,} messages, none missing; the stack with five producers: "
            f"{hour['messages_per_s']:g} messages/s for {hour['seconds'] / 60:.0f} minutes, in which five of its "
            "processes were killed",
            "feed, orchestration-kills",
        ),
        (
            "from ingestion to analytics in less than 10 minutes",
            f"poll to movers in PostgreSQL {latency['poll_to_movers']['ranked']['p95_s']:.1f} s, trade to its bar "
            f"{latency['trade_to_bar']['p95_s'] / 60:.1f} min, to its final feature row "
            f"{latency['trade_to_final_features']['p95_s'] / 60:.1f} min (each p95)",
            "stack-latency",
        ),
        (
            "50,000 records a day",
            f"{day['records']:,} records ({day['messages']:,} messages) through every layer in "
            f"{day['seconds_in_all']:.0f} s of work",
            "day",
        ),
        (
            "more than 70 features",
            f"{len(FEATURES)} features and {len(TARGETS)} targets, none of which reads what came after its trade",
            "docs/features.md",
        ),
        (
            "Parquet five times smaller than JSON",
            ", ".join(f"{layer} {sums['times_smaller']:g} times" for layer, sums in layers.items()),
            "storage",
        ),
        (
            "95 % less scanned by a query for one product and day",
            ", ".join(
                f"{name} {100 - one['read_of_the_table_percent_mean']:.1f} %" for name, one in sorted(scanned.items())
            )
            + f" less, of {min(one['products_and_days'] for one in scanned.values())} products and days",
            "storage",
        ),
    ]
    return table(("claimed", "measured here", "by"), rows)


def airflow() -> str:
    """Airflow itself, and its backfills."""
    backfills = [_backfill(name) for name in ("orchestration-backfill", "orchestration-kills")]
    return table(("figure", "measured", "by"), [*_airflow_alone(), *backfills, *_compaction(), *_crawl()])


def _compaction() -> list[tuple[str, str, str]]:
    result = load("compaction")
    rows = []
    for name in ("bronze.trades_raw", "silver.trades"):
        one = result[name]
        sizes = one["mib_of_each_file_after"]
        least, most = f"{min(sizes):.0f}", f"{max(sizes):.0f}"
        rows.append(
            (
                f"upkeep of a closed partition of {name}, {one['rows']:,} rows in {one['files_before']} files, "
                f"into {len(sizes)} of {least if least == most else f'{least} to {most}'} MiB, "
                f"{'no row' if one['rows_are_the_same'] else 'ROWS'} changed",
                f"{one['seconds']:.0f} s",
                "compaction",
            )
        )
    return rows


def _crawl() -> list[tuple[str, str, str]]:
    crawl = load("crawl")
    files = f"{crawl['files']:,} files of {crawl['columns']} columns"
    return [
        (f"the first crawl of {files}", f"{crawl['first_s']:.1f} s", "crawl"),
        ("the next one, where nothing has changed", f"{crawl['unchanged_median_s']:.1f} s", "crawl"),
    ]


def _airflow_alone() -> list[tuple[str, str, str]]:
    alone, busy = load("airflow"), load("stack-idle")["by_service"]
    parts = sum(share for name, share in busy.items() if name.startswith("airflow-"))
    first = alone["queued_to_first_task"]
    return [
        ("a full parse of all Dags", f"{alone['parse']['parse_s']:.1f} s for {alone['parse']['dags']} Dags", "airflow"),
        ("Airflow's four parts without a run", f"{alone['idle']['percent_of_one_core']:.1f} % of one core", "airflow"),
        ("the same with every Dag at work on a stopped exchange", f"{parts:.0f} % of one core", "stack-idle"),
        (
            "a trigger to the run's first task",
            f"{first['median_s']:g} s in the middle of {first['runs']}, {first['most_s']:g} s at most",
            "airflow",
        ),
    ]


def _backfill(name: str) -> tuple[str, str, str]:
    result = load(name)
    killed = f", in which {len(result['kills'])} processes were killed" if result["kills"] else ""
    return (
        f"a backfill of {result['hours']} hours of {result['products']} products ({result['trades']:,} trades) by four "
        f"Dags, {sum(result['backfill_runs'].values())} runs, the schedule and the stream beside it{killed}",
        f"{result['backfill_seconds'] / 60:.1f} min",
        name,
    )


PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"figures": figures, "kills": kills},
    PERFORMANCE: {"claims": claims, "airflow": airflow},
}


def with_tables(page: Path) -> str:
    """The page's text with what lies between `<!-- name -->` and `<!-- /name -->` written anew."""
    text = page.read_text()
    for name, made in PAGES[page].items():
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"<!-- /{name} -->")
        if not opening or not closing:
            raise ValueError(f"{page.name} has no <!-- {name} --> … <!-- /{name} -->")
        text = f"{before}{opening}{made()}\n{closing}{after}"
    return text


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(with_tables(page))


if __name__ == "__main__":
    main()
