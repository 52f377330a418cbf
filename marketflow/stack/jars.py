"""Fetch the Java parts named in ivy.xml into .jars/ and hold every file to the hash list in jars.sha256.

Ivy checks SHA-1 on download and never looks at its cache again, so each retrieved file is compared with the
checked-in SHA-256 list; a file that differs is deleted and fetched once more. `--update` rewrites the list.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from marketflow.errors import SetupError
from marketflow.paths import JARS_FOLDER, PROJECT_FOLDER

IVY_FILE = PROJECT_FOLDER / "ivy.xml"
HASH_FILE = PROJECT_FOLDER / "jars.sha256"
CONFIGURATIONS = ("spark", "kafka", "s3")


def classpath(configuration: str) -> list[Path]:
    """Jars of one of `spark`, `kafka`, `s3`, sorted by name."""
    jars = sorted((JARS_FOLDER / configuration).glob("*.jar"))
    if not jars:
        raise SetupError(f"no jars in {JARS_FOLDER / configuration}: run `make setup`")
    return jars


def java() -> str:
    """The java program of JAVA_HOME, else of PATH."""
    import os

    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    if not found:
        raise SetupError("no java found: install Java 17 or 21, or set JAVA_HOME")
    return found


def _hash_list() -> dict[str, str]:
    lines = HASH_FILE.read_text().splitlines() if HASH_FILE.exists() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines if line)}


def _present() -> dict[str, str]:
    return {
        str(path.relative_to(JARS_FOLDER)): hashlib.sha256(path.read_bytes()).hexdigest()
        for configuration in CONFIGURATIONS
        for path in sorted((JARS_FOLDER / configuration).glob("*.jar"))
    }


def _retrieve() -> None:
    import pyspark

    ivy = next(Path(pyspark.__file__).parent.glob("jars/ivy-*.jar"))
    pattern = f"{JARS_FOLDER}/[conf]/[artifact]-[revision](-[classifier]).[ext]"
    command = [java(), "-jar", str(ivy), "-ivy", str(IVY_FILE), "-cache", str(JARS_FOLDER / "cache")]
    command += ["-types", "jar", "bundle", "-sync", "-retrieve", pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own argument list
    if done.returncode != 0:
        raise SetupError(f"Ivy could not fetch the jars:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


def fetch() -> None:
    """Make .jars/ hold exactly the files of jars.sha256, or raise SetupError naming those that differ."""
    wanted = _hash_list()
    if wanted and _present() == wanted:
        return
    print("setup: fetching the jars of Kafka, Iceberg, s3proxy and Spark's Kafka source (255 MB)", file=sys.stderr)
    _retrieve()
    present = _present()
    wrong = [name for name, digest in present.items() if wanted.get(name) != digest]
    if wrong:
        for name in wrong:
            (JARS_FOLDER / name).unlink()
        shutil.rmtree(JARS_FOLDER / "cache", ignore_errors=True)
        _retrieve()
        present = _present()
    if present != wanted:
        differing = sorted(set(wanted.items()) ^ set(present.items()))
        raise SetupError(f"jars differ from {HASH_FILE.name}: {sorted({name for name, _ in differing})}")


def main() -> None:
    """Fetch and verify; with `--update`, record what Ivy delivered as the new list."""
    if "--update" in sys.argv[1:]:
        _retrieve()
        HASH_FILE.write_text("".join(f"{digest}  {name}\n" for name, digest in _present().items()))
        return
    try:
        fetch()
    except SetupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
