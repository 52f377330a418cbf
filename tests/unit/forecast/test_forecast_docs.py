"""docs/forecast.md prints what its code prints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from marketflow.paths import PROJECT_FOLDER

PAGE = PROJECT_FOLDER / "docs" / "forecast.md"
BLOCK = re.compile(r"```python\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


def with_output(text: str, folder: Path) -> str:
    """The page with what its blocks print, run one after another in a folder that has the project's fixtures."""
    names: dict[str, object] = {}

    def run(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(found[1], str(PAGE), "exec"), names)
        return f"```python\n{found[1]}```\n```text\n{printed.getvalue()}```"

    (folder / "tests").symlink_to(PROJECT_FOLDER / "tests")
    with contextlib.chdir(folder):
        return BLOCK.sub(run, text)


def test_the_page_says_what_its_code_prints_and_the_command_says_the_same(tmp_path: Path) -> None:
    text = PAGE.read_text()
    assert len(BLOCK.findall(text)) == text.count("```python") == 6
    assert with_output(text, tmp_path) == text, "python tests/unit/forecast/test_forecast_docs.py writes it anew"

    from marketflow.cli import app

    made, out = tmp_path / "build/forecast/features.parquet", tmp_path / "model"
    done = CliRunner().invoke(app, ["forecast", "train", "--features", str(made), "--out", str(out)])
    assert done.exit_code == 0, done.output
    kept = json.loads((out / "run.json").read_text())
    assert f"\n{kept['verdict']}\n" in text
    assert kept["verdict"] in done.output
    assert kept["source"]["file"] == "features.parquet"
    assert (out / "model.txt").read_text().startswith("tree\n")


def test_a_wrong_command_is_told_what_goes_together(tmp_path: Path) -> None:
    from marketflow.cli import app

    given = str(tmp_path / "none.parquet")
    for arguments, words in (
        (["--features", given], "--features FILE and --out DIR go together"),
        (["--features", given, "--out", given, "--snapshot", "5"], "are of the lake; a file is taken whole"),
        ([], "name a --product, or a file"),
        (["--features", given, "--out", given], "no such file"),
    ):
        done = CliRunner().invoke(app, ["forecast", "train", *arguments])
        assert words in str(done.exception), arguments


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, os.fspath(PROJECT_FOLDER))
    with tempfile.TemporaryDirectory() as temporary:
        PAGE.write_text(with_output(PAGE.read_text(), Path(temporary)))
