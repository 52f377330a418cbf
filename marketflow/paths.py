"""Where the project's own files are. State lives elsewhere: under settings.home."""

from __future__ import annotations

from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
JARS_FOLDER = PROJECT_FOLDER / ".jars"
SQL_FOLDER = PROJECT_FOLDER / "include" / "sql"
