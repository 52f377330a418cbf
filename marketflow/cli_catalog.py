"""`marketflow crawl` and `marketflow export …`: the Glue Data Catalog, and files for tools that read no Iceberg."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

export_app = typer.Typer(help="Plain files in the lake's bucket, for tools that read no Iceberg.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
Product = Annotated[str | None, typer.Option(help="Only this product, e.g. BTC-USD.")]
Start = Annotated[
    str | None, typer.Option(help="Start, inclusive: 2026-11-20T05:00Z, or 2026-11-20. Folders are whole.")
]
End = Annotated[str | None, typer.Option(help="End, exclusive.")]


def crawl(
    anew: Annotated[bool, typer.Option("--anew", help="Look at every file and partition, changed or not.")] = False,
    prove: Annotated[bool, typer.Option(help="Read every table through the catalog afterwards.")] = True,
    as_json: Json = False,
) -> None:
    """Publish the lake's tables and the exports to the Glue Data Catalog, then prove that each reads."""
    from marketflow import settings
    from marketflow.catalog import render
    from marketflow.stack import catalog as stack_catalog

    report, proofs = stack_catalog.crawl(settings.load(), anew=anew, proven=prove)
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), "proofs": [one.as_dict() for one in proofs]}))
        return
    typer.echo(str(report))
    if prove:
        typer.echo(render.records([one.as_dict() for one in proofs]))


@export_app.command("features")
def features(product: Product = None, start: Start = None, end: End = None, as_json: Json = False) -> None:
    """gold.trade_features as features/product_id=…/event_date=…/hour=…/, a Parquet file each.

    Folders whose rows did not change are left as they are.
    """
    from marketflow.stack import catalog as stack_catalog

    _tell([stack_catalog.export_features(_settings(), product, start, end)], as_json)


@export_app.command("silver")
def silver(
    table: Annotated[
        list[str] | None, typer.Option("--table", help="trades, quotes, candles, asset_prices; all without it.")
    ] = None,
    product: Product = None,
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Silver's tables as silver/TABLE/product_id=…/event_date=…/ (asset_prices by source=…), a Parquet file each."""
    from marketflow.stack import catalog as stack_catalog

    _tell(stack_catalog.export_silver(_settings(), table, product, start, end), as_json)


@export_app.command("raw")
def raw(
    topic: Annotated[list[str] | None, typer.Option("--topic", help="E.g. crypto.trades.raw; all without it.")] = None,
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Bronze as raw/TOPIC/ingest_date=…/: a line of JSON a record, with its bytes, key and headers as received.

    `marketflow replay s3://…/raw/` makes the same rows of it again.
    """
    from marketflow.stack import catalog as stack_catalog

    _tell(stack_catalog.export_raw(_settings(), topic, start, end), as_json)


def _settings() -> Any:
    from marketflow import settings

    return settings.load()


def _tell(reports: list[Any], as_json: bool) -> None:
    typer.echo(json.dumps([one.as_dict() for one in reports]) if as_json else "\n".join(map(str, reports)))
