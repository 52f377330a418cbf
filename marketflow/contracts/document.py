"""docs/tables.md, generated from the contracts: `python -m marketflow.contracts.document [--check]`."""

from __future__ import annotations

import sys

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.contracts.tables import ALL_TABLES, LAKE_TABLES
from marketflow.paths import PROJECT_FOLDER

TARGET = PROJECT_FOLDER / "docs" / "tables.md"

_HEAD = """# Tables

Generated from `marketflow/contracts/` by `make docs`; do not edit. Money is Decimal(38,18), times are UTC microseconds.
In the lake a table's full name carries the dataset: `silver.trades` is `lake.sim_silver.trades`. In PostgreSQL the
dataset is the database: `marketflow_sim`. Gold tables exist in both, with the same columns.
"""


def _store(table: Table) -> str:
    if table in GOLD_TABLES:
        return "Iceberg and PostgreSQL"
    return "Iceberg" if table in LAKE_TABLES else "PostgreSQL"


def _section(table: Table) -> str:
    lines = [f"## {table.qualified}", "", table.description, ""]
    facts = [f"**Grain** {table.grain}", f"**Key** {', '.join(table.key)}", f"**Store** {_store(table)}"]
    facts.append(f"**Written by** {table.owner}")
    if table.partitioning:
        facts.append(f"**Partitioned by** {', '.join(table.partitioning)}")
    if table.day_column:
        facts.append(f"**In PostgreSQL** a partition a day of {table.day_column}")
    if table.sort_order:
        facts.append(f"**Sorted by** {', '.join(table.sort_order)}")
    lines += [" · ".join(facts), "", "| column | type | unit | null | what it is |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {column.name} | {column.type.spark} | {column.unit} | {'yes' if column.nullable else 'no'} "
        f"| {column.description.replace('|', chr(92) + '|')} |"
        for column in table.columns
    ]
    return "\n".join(lines)


def document() -> str:
    """The whole page."""
    return "\n\n".join([_HEAD.rstrip(), *(_section(table) for table in ALL_TABLES.values())]) + "\n"


def main() -> None:
    """Write the page, or with `--check` say that it is out of date."""
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != document():
            sys.exit("docs/tables.md differs from the contracts: run `make docs`")
        return
    TARGET.write_text(document())


if __name__ == "__main__":
    main()
