"""Text that a person has read and found right: what is rendered today must be the same."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).with_name("reviewed")
ACCEPT = "MARKETFLOW_TEST_ACCEPT"


def compare(name: str, rendered: str) -> None:
    """Fail with the difference; with MARKETFLOW_TEST_ACCEPT=1 the file is written instead, to be read in review."""
    path = FOLDER / name
    if os.environ.get(ACCEPT) == "1":
        path.write_text(rendered)
    reviewed = path.read_text() if path.exists() else ""
    difference = list(difflib.unified_diff(reviewed.splitlines(), rendered.splitlines(), name, "rendered", lineterm=""))
    assert not difference, "\n".join(
        [*difference, f"if this is meant: {ACCEPT}=1 make test-dags test-unit, then read {path.name} in the diff"]
    )
