"""Numbers that no row, no hour and no date can be are refused before anything is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from marketflow.cli import app

HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    "arguments",
    [
        ["quality", "run", "bars_add_up", "--hours", "1e9"],
        ["quality", "run", "bars_add_up", "--hours", "inf"],
        ["quality", "run", "bars_add_up", "--hours", "nan"],
        ["quality", "run", "bars_add_up", "--judged-hours", "nan"],
        ["quality", "history", "-n", HUGE],
        ["alerts", "list", "-n", HUGE],
        ["gaps", "--limit", HUGE],
        ["quarantine", "show", "--limit", HUGE],
        ["forecast", "list", "-n", HUGE],
    ],
)
def test_a_number_that_cannot_be_is_a_usage_error(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Invalid value" in done.output


def test_a_table_of_which_there_is_no_check_is_named() -> None:
    done = CliRunner().invoke(app, ["quality", "history", "--trend", "--table", "gold.bar"])
    assert "--table gold.bar: there are checks of" in str(done.exception)
