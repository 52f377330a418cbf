"""Secrets of one machine: generated once, kept in `<home>/secrets.json` with mode 0600, never printed."""

from __future__ import annotations

import json
import os
import secrets as random_source
from pathlib import Path

from marketflow.settings import Settings

NAMES = (
    "postgres_postgres",
    "postgres_marketflow_writer",
    "postgres_marketflow_reader",
    "postgres_iceberg",
    "postgres_airflow",
    "s3_access_key",
    "s3_secret_key",
    "airflow_jwt_secret",
    "airflow_api_secret_key",
    "airflow_fernet_key",
    "airflow_admin_password",
    "airflow_op_password",
    "airflow_viewer_password",
    "kafka_cluster_id",
)


def _new(name: str) -> str:
    import base64
    import uuid

    if name == "airflow_fernet_key":
        return base64.urlsafe_b64encode(os.urandom(32)).decode()
    if name == "kafka_cluster_id":
        # Kafka's tools read an id that begins with a dash as an option, so such a one is drawn again
        while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
            pass
        return text
    length = 12 if name.endswith("_password") else 32
    return random_source.token_hex(length)


def ensure(settings: Settings) -> Path:
    """Create the missing secrets, keep those that are there, and return the file's path."""
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / "secrets.json"
    stored: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in NAMES if name not in stored]
    if missing:
        stored |= {name: _new(name) for name in missing}
        write_private(path, json.dumps(stored, indent=1))
        settings.__dict__.pop("secrets", None)  # the cached property was read before the file existed
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
