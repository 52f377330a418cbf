"""The SQL of publication and of the checks with names filled in, as PostgreSQL gets it: tests/reviewed/rendered.sql."""

from __future__ import annotations

from psycopg import sql

from marketflow.contracts.gold import GOLD_TABLES
from marketflow.warehouse import checks, publish
from tests import reviewed_files

STATEMENTS = ("delete_all", "delete_hours", "record")


def statement(name: str, table) -> str:
    names = {
        "table": sql.Identifier(table.layer, table.name),
        "hour_column": sql.Identifier(str(table.hour_column)),
    }
    return sql.SQL(publish._statement(name)).format(**names).as_string(None)


def code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--"))


def test_the_rendered_sql_is_the_reviewed_one() -> None:
    parts = []
    for name in STATEMENTS:
        for table in GOLD_TABLES[: 1 if name == "record" else None]:
            parts.append(f"-- publish/{name}, {table.qualified}\n{code(statement(name, table))}")
    # the others are reviewed as the files they are
    for check in (one for one in checks.sql_checks() if one.name.endswith(f".{one.subject.split('.')[-1]}")):
        parts.append(f"-- check {check.name}\n{code(checks._query(check, None).as_string(None))}")
    reviewed_files.compare("rendered.sql", "\n\n".join(parts) + "\n")
