"""`marketflow crawl` and `export`: the library's work with this deployment's own clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from botocore.exceptions import BotoCoreError, ClientError

from marketflow.catalog import crawl as crawling
from marketflow.catalog import export_raw as raw
from marketflow.catalog import layouts
from marketflow.catalog.crawl import CrawlReport
from marketflow.catalog.export import ExportReport, Scope, export, refuse_unknown_owner
from marketflow.catalog.layouts import Layout
from marketflow.catalog.prove import Proof, prove
from marketflow.contracts.topics import TOPICS
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.settings import Settings
from marketflow.stack import glue, s3


def crawl(settings: Settings, *, anew: bool = False, proven: bool = True) -> tuple[CrawlReport, list[Proof]]:
    """One crawl, and the proofs that its tables read.

    Raises:
        ConfigurationError: AWS Glue's own crawler does it here, or its tables are Athena's to prove.
        CrawlError: as `catalog.crawl.crawl` and `catalog.prove.prove`.
    """
    if settings.crawler == "glue":
        raise ConfigurationError("MARKETFLOW_CRAWLER=glue: Dag crawl_catalog runs AWS Glue's own crawler; start that")
    if proven and settings.deployment == "aws":
        raise ConfigurationError("on AWS Dag crawl_catalog proves the tables by Athena; here use --no-prove")
    client = glue.client(settings)
    report = crawling.crawl(settings, s3.client(settings), client, anew=anew)
    return report, prove(settings, client) if proven else []


def export_features(
    settings: Settings, product: str | None = None, start: str | None = None, end: str | None = None
) -> ExportReport:
    """Bring the features' plain copy up to date."""
    return _export(settings, [layouts.FEATURES], product, start, end)[0]


def export_silver(
    settings: Settings,
    tables: Sequence[str] | None = None,
    product: str | None = None,
    start: str | None = None,
    end: str | None = None,
) -> list[ExportReport]:
    """The same of silver's tables, all by default; of one product, of those that have products.

    Raises:
        ConfigurationError: none of them has the product, or the start is not before the end.
    """
    names = [name.removeprefix("silver.") for name in tables or layouts.SILVER]
    unknown = sorted(set(names) - set(layouts.SILVER))
    if unknown:
        raise ConfigurationError(f"--table {unknown[0]}: there are {', '.join(layouts.SILVER)}")
    chosen = [layouts.SILVER[name] for name in names]
    if product is not None:
        without = [one.table.qualified for one in chosen if one.owner_column != "product_id"]
        if without and tables:
            raise ConfigurationError(f"--product: {without[0]} has no products")
        chosen = [one for one in chosen if one.owner_column == "product_id"]
    return _export(settings, chosen, product, start, end)


def export_raw(
    settings: Settings, topics: Sequence[str] | None = None, start: str | None = None, end: str | None = None
) -> list[ExportReport]:
    """Bronze as lines of JSON, every topic by default."""
    chosen = [raw.topic_of(name) for name in topics] if topics else list(TOPICS)
    scope = _scope(None, start, end)
    with _said_plainly(settings):
        return [raw.export_raw(settings, s3.client(settings), one, scope) for one in chosen]


def _export(
    settings: Settings, chosen: Sequence[Layout], product: str | None, start: str | None, end: str | None
) -> list[ExportReport]:
    scope = _scope(product, start, end)
    with _said_plainly(settings):
        if product is not None:
            refuse_unknown_owner(chosen, settings, product)
        return [export(settings, s3.client(settings), one, scope) for one in chosen]


def _scope(product: str | None, start: str | None, end: str | None) -> Scope:
    first, after = _moment("--start", start), _moment("--end", end)
    if first is not None and after is not None and first >= after:
        raise ConfigurationError(f"--start {start} is not before --end {end}")
    return Scope(product, first, after)


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is no time, as 2026-11-20T05:00Z is") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@contextmanager
def _said_plainly(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        raise MarketflowError(
            f"{settings.s3_endpoint or 'S3'} did not take it ({error}); `marketflow status`"
        ) from error
