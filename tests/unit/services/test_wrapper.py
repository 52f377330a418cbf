"""The wrapper's small parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from marketflow.services.state import delay_s
from marketflow.services.supervisor_files import _value
from marketflow.services.wrapper import parse


def test_pauses_double_up_to_a_minute() -> None:
    assert [delay_s(failures) for failures in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert delay_s(1_000_000) == 60


def test_the_wrapper_imports_nothing_but_the_standard_library() -> None:
    script = "import sys, marketflow.services.wrapper; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, '.'); {script}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(done.stdout.split()) - sys.stdlib_module_names - {"__main__"} == {"marketflow"}


def test_the_command_is_what_follows_the_first_double_dash() -> None:
    options = parse(["one", "--wait", "127.0.0.1:1", "--wait", "/a", "--", "run", "--wait", "x", "--", "y"])

    assert options.name == "one"
    assert options.wait == ["127.0.0.1:1", "/a"]
    assert options.command == ["run", "--wait", "x", "--", "y"]


def test_a_missing_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["one", "--wait", "127.0.0.1:1"])
    assert "no command: write it after --" in capsys.readouterr().err


def test_texts_that_supervisord_would_misread_are_refused_and_percent_signs_doubled() -> None:
    assert _value("/a b/100%;#") == "/a b/100%%;#"
    for text in ("a ;b", "a #b", "a\nb"):
        with pytest.raises(Exception, match="comment or another line"):
            _value(text)
