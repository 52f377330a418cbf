"""The house keeps its own rules: imports run one way, contracts hold together, no file names a registry's host."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from marketflow.contracts.document import TARGET, document
from marketflow.contracts.tables import ALL_TABLES
from marketflow.paths import PROJECT_FOLDER


def test_imports_run_one_way() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=PROJECT_FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 kept, 0 broken" in done.stdout


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by their names: of two that are alike the second cannot be collected."""
    names = [path.name for path in (PROJECT_FOLDER / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_a_backward_import_would_be_found(tmp_path: Path) -> None:
    """The check above can fail: a kernel that imports the lake breaks the layers."""
    tree = tmp_path / "marketflow"
    for room in ("features", "lake"):
        (tree / room).mkdir(parents=True)
        (tree / room / "__init__.py").write_text('"""A room."""\n')
    (tree / "__init__.py").write_text('"""The house."""\n')
    (tree / "features" / "kernel.py").write_text("import marketflow.lake\n")
    (tmp_path / ".importlinter").write_text(
        "[importlinter]\nroot_package = marketflow\n[importlinter:contract:1]\nname = layers\ntype = layers\n"
        "layers =\n    marketflow.lake\n    marketflow.features\n"
    )
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "marketflow.features is not allowed to import marketflow.lake" in done.stdout


def test_every_contract_has_its_key_among_its_columns_and_a_sentence_for_each() -> None:
    for table in ALL_TABLES.values():
        assert set(table.key) <= set(table.column_names), table.qualified
        assert len(set(table.column_names)) == len(table.columns), table.qualified
        assert all(column.description for column in table.columns), table.qualified


def test_the_tables_page_is_what_the_contracts_say() -> None:
    assert TARGET.read_text() == document()


def _tracked_texts() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT_FOLDER, capture_output=True, text=True, check=False)
    names = done.stdout.splitlines() or [str(path) for path in PROJECT_FOLDER.glob("*")]
    return [PROJECT_FOLDER / name for name in names if not name.endswith((".parquet", ".png"))]


def test_no_file_names_a_registry_or_a_machine() -> None:
    # written with a space in each, so that this file does not name them either
    names = (
        r"py pi\.org",
        "python hosted",
        r"ma ven\.org",
        r"registry\. npmjs",
        "-- index-url",
        "-- extra-index",
        "/ho me/[a-z]+/",
    )
    forbidden = re.compile("|".join(name.replace(" ", "") for name in names))
    found = [
        f"{path.relative_to(PROJECT_FOLDER)}: {match.group()}"
        for path in _tracked_texts()
        if path.is_file()
        for match in forbidden.finditer(path.read_text(errors="ignore"))
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["marketflow", "plugins", "spark_jobs", "dags"])
def test_every_python_file_says_what_it_is_for(folder: str) -> None:
    silent = [
        str(path.relative_to(PROJECT_FOLDER))
        for path in (PROJECT_FOLDER / folder).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


USED = {
    "airflow.sdk": "Dags, tasks and hooks",
    "airflow.providers.apache.kafka": "Kafka's end offsets and first messages",
    "airflow.providers.amazon": "S3 and Glue",
    "airflow.providers.postgres": "publication's audit, quality, accounts",
    "pyspark": "the stream and the jobs",
    "boto3": "the lake's bucket and the catalog",
}
OURS = ("dags", "plugins", "marketflow", "spark_jobs")


def _uses(tree: ast.Module, package: str) -> int:
    """How often a name that a module imports from a package is used in it, type annotations apart."""
    checked = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    for_types = {id(inner) for node in checked for inner in ast.walk(node)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {
                (alias.asname or alias.name).split(".")[0]
                for alias in node.names
                if f"{alias.name}.".startswith(f"{package}.")
            }
    called = [node for node in ast.walk(tree) if isinstance(node, (ast.Call, ast.ClassDef, ast.Attribute, ast.With))]
    inside = {id(name): name.id for node in called for name in ast.walk(node) if isinstance(name, ast.Name)}
    return sum(name in names for name in inside.values())


@pytest.mark.parametrize("package", sorted(USED))
def test_what_the_platform_names_as_its_parts_is_at_work_outside_tests(package: str) -> None:
    files = [path for folder in OURS for path in sorted((PROJECT_FOLDER / folder).rglob("*.py"))]
    used_in = {path.name for path in files if _uses(ast.parse(path.read_text()), package)}
    assert used_in, f"{package} ({USED[package]}) is at work nowhere"


def test_an_import_that_nothing_uses_does_not_count() -> None:
    assert _uses(ast.parse("import boto3x\nboto3x.client('s3')"), "boto3") == 0
    assert _uses(ast.parse("import boto3"), "boto3") == 0
    assert _uses(ast.parse("import boto3\nboto3.client('s3')"), "boto3") == 1
