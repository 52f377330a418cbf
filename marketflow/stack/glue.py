"""The embedded Glue API: moto's, its Glue part alone, on loopback.

It keeps everything in memory and forgets it when it ends, which costs nothing: the catalog is a view of the lake, and
the next crawl publishes it again.
"""

from __future__ import annotations

import time
from typing import Any

from marketflow.errors import SetupError
from marketflow.services.environment import python
from marketflow.settings import Settings


def command(settings: Settings) -> list[str]:
    """The server's command line, in the foreground. It listens where the settings say."""
    del settings
    return [python(), "-m", "marketflow.stack.glue_server"]


def client(settings: Settings) -> Any:
    """A boto3 Glue client with an explicit endpoint and no proxy, so that an embedded stack never reaches AWS."""
    import boto3
    from botocore.config import Config

    if settings.deployment == "aws":
        return boto3.client("glue", endpoint_url=settings.glue_endpoint, region_name=settings.aws_region)
    return boto3.client(
        "glue",
        endpoint_url=settings.glue_endpoint,
        region_name=settings.aws_region,
        # it asks for some keys and checks none
        aws_access_key_id=settings.secret("s3_access_key"),
        aws_secret_access_key=settings.secret("s3_secret_key"),
        # to check 1,000 partitions of 130 columns against the API's model takes longer than to send them
        config=Config(connect_timeout=3, retries={"max_attempts": 2}, proxies={}, parameter_validation=False),
    )


def wait_until_ready(settings: Settings, timeout_s: float = 30.0) -> None:
    """Until it lists databases, or SetupError."""
    from botocore.exceptions import BotoCoreError, ClientError

    connection, deadline = client(settings), time.monotonic() + timeout_s
    while True:
        try:
            connection.get_databases()
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise SetupError(
                    f"the Glue API did not answer within {timeout_s:.0f} s ({error}); `marketflow logs glue`"
                ) from error
            time.sleep(0.2)
