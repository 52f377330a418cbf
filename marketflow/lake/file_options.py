"""How PyIceberg reaches the lake's files."""

from __future__ import annotations

from marketflow.settings import Settings


def file_options(settings: Settings) -> dict[str, str]:
    """How PyIceberg reaches the lake's files: on AWS by the machine's role, else with everything spelled out."""
    if settings.deployment == "aws":
        endpoint = {"s3.endpoint": settings.s3_endpoint} if settings.s3_endpoint else {}
        return {"s3.region": settings.aws_region, **endpoint}
    return {
        "s3.endpoint": settings.s3_endpoint or "",
        "s3.region": settings.aws_region,
        "s3.access-key-id": settings.secret("s3_access_key"),
        "s3.secret-access-key": settings.secret("s3_secret_key"),
        "s3.force-virtual-addressing": "false",
    }
