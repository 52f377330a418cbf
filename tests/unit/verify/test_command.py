"""Arguments that would make `verify` judge nothing are refused before it looks at anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.verify import command


@pytest.mark.parametrize("hours", ["nan", "-1", "0", "inf", "many"])
def test_hours_are_a_number_above_nought(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--hours", hours])
    assert ended.value.code == 2
    assert f"{hours} is no number of hours above 0" in capsys.readouterr().err


def test_a_truth_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--truth", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds neither trades.ndjson nor prices.ndjson" in capsys.readouterr().err
