"""The embedded S3 API: s3proxy over a folder. It writes by temporary file and atomic move and does not fsync."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marketflow.errors import SetupError
from marketflow.settings import Settings
from marketflow.stack import jars
from marketflow.stack.secrets import write_private

_CONFIGURATION = """\
s3proxy.endpoint=http://{host}:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={access_key}
s3proxy.credential={secret_key}
s3proxy.ignore-unknown-headers=true
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir={folder}/data
"""


def _folder(settings: Settings) -> Path:
    return settings.home / "s3"


def prepare(settings: Settings) -> None:
    """Write the configuration. Safe to run again."""
    folder = _folder(settings)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    keys = {"access_key": settings.secret("s3_access_key"), "secret_key": settings.secret("s3_secret_key")}
    text = _CONFIGURATION.format(host=settings.host, port=settings.s3_port, folder=folder, **keys)
    write_private(folder / "s3proxy.conf", text)


def command(settings: Settings) -> list[str]:
    """The server's command line, in the foreground."""
    (jar,) = jars.classpath("s3")
    properties = str(_folder(settings) / "s3proxy.conf")
    return [jars.java(), "-Xmx256m", "-jar", str(jar), "--properties", properties]


def client(settings: Settings) -> Any:
    """A boto3 S3 client with an explicit endpoint, so that an embedded stack never reaches AWS by accident."""
    import boto3
    from botocore.config import Config

    if settings.deployment == "aws":
        return boto3.client("s3", endpoint_url=settings.s3_endpoint, region_name=settings.aws_region)
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.aws_region,
        aws_access_key_id=settings.secret("s3_access_key"),
        aws_secret_access_key=settings.secret("s3_secret_key"),
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=3,
            retries={"max_attempts": 2},
            # it is on this machine or beside us: a proxy that the environment names would carry it away
            proxies={},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def wait_until_ready(settings: Settings, timeout_s: float = 60.0) -> None:
    """Until buckets can be listed, or SetupError."""
    from botocore.exceptions import BotoCoreError, ClientError

    connection, deadline = client(settings), time.monotonic() + timeout_s
    while True:
        try:
            connection.list_buckets()
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise SetupError(f"the S3 API did not answer within {timeout_s:.0f} s: {error}") from error
            time.sleep(0.2)


def create_bucket(settings: Settings) -> None:
    """The lake's bucket, and that of Airflow's remote logs where it is another one. Safe to run again."""
    connection = client(settings)
    wanted = {settings.lake_bucket}
    if settings.airflow_remote_logs:
        wanted.add(str(urlsplit(settings.airflow_remote_logs).hostname))
    for name in wanted - {bucket["Name"] for bucket in connection.list_buckets()["Buckets"]}:
        connection.create_bucket(Bucket=name)


def environment(settings: Settings) -> dict[str, str]:
    """Variables the server needs beside the machine's own: none, its files say all."""
    del settings
    return {}
