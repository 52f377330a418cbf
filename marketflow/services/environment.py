"""The environment of everything that runs on one machine: nothing in it can reach a real cloud account by accident."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import SecretStr

from marketflow.settings import Settings

# What a machine, not a configuration, decides. A difference here does not make a service's configuration another one.
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "JAVA_HOME",
    "LD_LIBRARY_PATH",
    "MALLOC_ARENA_MAX",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
)

# No credentials file, no metadata service, no checksum trailers (the S3 server does not know them).
NO_CLOUD = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
}


def python() -> str:
    """This installation's Python, by the same path whoever asks (`sys.executable` depends on how it was called)."""
    installed = Path(sys.prefix) / "bin" / "python"
    return str(installed) if installed.exists() else sys.executable


def program(name: str) -> str:
    """A program installed beside this Python."""
    return str(Path(python()).parent / name)


def machine_environment() -> dict[str, str]:
    """What every process of the embedded stack gets: the machine's own variables and no way to a cloud.

    Named variables are taken, all others dropped, so that a service is the same from whichever shell it was started.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    folder = str(Path(python()).parent)
    path = [part for part in inherited.get("PATH", os.defpath).split(os.pathsep) if part and part != folder]
    return {
        **inherited,
        **NO_CLOUD,
        "PATH": os.pathsep.join([folder, *path]),
        "PYTHONUNBUFFERED": "1",
        "PYSPARK_PYTHON": python(),
        "PYSPARK_DRIVER_PYTHON": python(),
    }


def embedded_environment(settings: Settings) -> dict[str, str]:
    """The machine's environment and the MARKETFLOW_* in force: all that a Spark job, a Dag or a service needs.

    Settings from `.env` and `stack.json` are not repeated: whoever starts later reads them as they are then.
    """
    fields = {f"MARKETFLOW_{name.upper()}" for name in Settings.model_fields}
    others = ("MARKETFLOW_SECRET_", "MARKETFLOW_SIMULATOR_")
    given = {name: value for name, value in os.environ.items() if name in fields or name.startswith(others)}
    return {**machine_environment(), **given, **pinned(settings, ("home", "dataset", "deployment"))}


def pinned(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Settings as MARKETFLOW_* variables, with the values they have now; a setting that is None is left out."""
    values = {name: getattr(settings, name) for name in names}
    return {f"MARKETFLOW_{name.upper()}": _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
