"""Addresses as settings have them: what is none is refused in a sentence that shows what one looks like.

An address that nobody checks is found out at 3 a.m., by the first message that does not arrive.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def checked(value: str, schemes: tuple[str, ...]) -> str:
    """The address itself, if it has one of these schemes and a host."""
    try:
        parts = urlsplit(value)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        parts, host = urlsplit(""), None
    # what a request cannot carry: it has to be written as %20 and the like
    plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in schemes or not host or not plain:
        raise ValueError(f"must be an address like {schemes[0]}://host:port/path")
    return value


def _url(*schemes: str) -> AfterValidator:
    return AfterValidator(lambda value: checked(value, schemes))


HttpUrl = Annotated[str, _url("https", "http")]
SocketUrl = Annotated[str, _url("wss", "ws")]


def _alert_target(value: str) -> str:
    if urlsplit(value).scheme in ("https", "http"):
        return checked(value, ("https", "http"))
    import apprise  # only who has such a target pays for it

    if "://" not in value or not apprise.Apprise.instantiate(value, suppress_exceptions=True):
        raise ValueError(
            "must be an address like https://host:port/path, which takes JSON, or one of Apprise's, such as "
            "slack://… or mailto://…"
        )
    return value


AlertUrl = Annotated[str, AfterValidator(_alert_target)]


def _parts(value: str) -> tuple[str, str, str, bool]:
    """Scheme, host, path without slashes at its ends, whether a port is there; of what is no address: nothing."""
    try:
        parts = urlsplit(value)
        return parts.scheme, parts.hostname or "", parts.path.strip("/"), bool(parts.port)
    except ValueError:
        return "", "", "", False


def _bucket_folder(value: str) -> str:
    scheme, host, path, port = _parts(value)
    if scheme != "s3" or not host or not path or port:
        raise ValueError("must be a folder of a bucket, like s3://lake/airflow-logs")
    return value.rstrip("/")


def _secrets_place(value: str) -> str:
    scheme, host, path, port = _parts(value)
    known = value in ("environment", "file")
    if not known and not (scheme == "secretsmanager" and host and path and port):
        raise ValueError(
            "must be environment, file (a private file of the home) or secretsmanager://host:port/prefix, an API like "
            "AWS Secrets Manager's; Airflow on AWS itself: docs/production.md"
        )
    return value


def _lineage_target(value: str) -> str:
    scheme, host, path, _ = _parts(value)
    if not (scheme == "file" and not host and path) and not (scheme in ("http", "https") and host):
        raise ValueError(
            "must be file:///path/events.ndjson or an address that takes OpenLineage's events, http(s)://…"
        )
    return value


def _metrics_target(value: str) -> str:
    scheme, host, path, port = _parts(value)
    if not (scheme == "statsd" and host and port and not path) and not (scheme in ("http", "https") and host):
        raise ValueError("must be statsd://host:8125 or an OpenTelemetry collector's http(s)://host:4318")
    return value


BucketFolder = Annotated[str, AfterValidator(_bucket_folder)]
SecretsPlace = Annotated[str, AfterValidator(_secrets_place)]
LineageTarget = Annotated[str, AfterValidator(_lineage_target)]
MetricsTarget = Annotated[str, AfterValidator(_metrics_target)]
