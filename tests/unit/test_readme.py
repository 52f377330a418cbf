"""The pages' figures are those of benchmarks/results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables


@pytest.mark.parametrize("page", list(tables.PAGES), ids=lambda page: page.name)
def test_a_pages_tables_are_what_was_measured(page: Path) -> None:
    assert tables.with_tables(page) == page.read_text(), "run python -m benchmarks.tables"
