"""Every check says how severe it is, whose, what a failing row means and what to do, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.contracts.gold import GOLD_TABLES
from marketflow.contracts.tables import ALL_TABLES
from marketflow.errors import ContractError
from marketflow.quality.run import every_check
from marketflow.warehouse.checks import gates_of, read_header

GOOD = """-- Purpose: a.
-- Severity: hard
-- Owner: b
-- Subject: gold.bars
-- Gate: yes
-- A failing row: is c, which
-- goes on here.
-- What to do: d.
-- Parameters: none.
-- Grain: e.
select 1
"""


def test_names_are_unique_and_subjects_are_tables() -> None:
    checks = every_check()
    assert len({check.name for check in checks}) == len(checks) >= 25
    for check in checks:
        assert check.subject in {*ALL_TABLES, "ops.layer_freshness"}, check.name
        assert all((check.purpose, check.meaning, check.remedy, check.owner)), check.name


def test_every_published_table_has_a_gate_for_nulls_keys_and_values() -> None:
    for table in GOLD_TABLES:
        gates = gates_of(table)
        assert {gate.severity for gate in gates} == {"hard"}
        names = [gate.name.split(".")[0] for gate in gates]
        assert {"rows_have_required_columns", "keys_are_unique"} < set(names), table.qualified
        assert {gate.owner for gate in gates} == {table.owner}


def test_a_check_of_doubles_is_made_for_the_tables_that_have_some() -> None:
    made = {check.subject for check in every_check() if check.name.startswith("numbers_are_finite.")}
    assert made == {"gold.price_metrics", "gold.top_movers", "gold.trade_features", "gold.product_day"}


def test_a_header_goes_over_several_lines(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_text(GOOD)
    (check,) = read_header(tmp_path / "one.sql")
    assert (check.name, check.severity, check.gates) == ("one", "hard", True)
    assert check.meaning == "is c, which goes on here."


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("-- Owner: b\n", "", "its header must say Purpose, Severity, Owner"),
        ("hard", "grave", "Severity is hard or soft"),
        ("Gate: yes", "Gate: maybe", "Gate is yes or no"),
    ],
)
def test_a_file_that_does_not_say_what_it_must_is_refused_by_name(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    (tmp_path / "one.sql").write_text(GOOD.replace(old, new))
    with pytest.raises(ContractError, match=rf"one\.sql: .*{sentence}"):
        list(read_header(tmp_path / "one.sql"))
