"""README's figures are those of benchmarks/results."""

from __future__ import annotations

from benchmarks import tables


def test_readmes_tables_are_what_was_measured() -> None:
    text = tables.README.read_text()
    assert tables.with_tables(text) == text, "run python -m benchmarks.tables"
