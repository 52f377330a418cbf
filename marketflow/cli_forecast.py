"""`marketflow forecast …`: a baseline model of the next trades' direction, beside guesses that need no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from marketflow.cli_options import MOST_ROWS

app = typer.Typer(help="A baseline forecast, honest about its score.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
Product = Annotated[str | None, typer.Option(help="A product, e.g. BTC-USD.")]


@app.command("train")
def train(
    product: Product = None,
    venue: Annotated[str | None, typer.Option(help="Where several trade it, e.g. coinbase_exchange.")] = None,
    horizon: Annotated[int, typer.Option(help="10 or 50 trades ahead.")] = 10,
    start: Annotated[str | None, typer.Option(help="Start, inclusive: 2026-11-20T05:00Z, or 2026-11-20.")] = None,
    end: Annotated[str | None, typer.Option(help="End, exclusive.")] = None,
    snapshot: Annotated[
        int | None, typer.Option(help="A snapshot of gold.trade_features: the same model again.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="A file of `features build` or `features read`, instead of the lake.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --features: the folder for model.txt and run.json.")] = None,
    as_json: Json = False,
) -> None:
    """Train on the newest rows of gold.trade_features, or of a file, and say what the score is worth.

    marketflow forecast train --product BTC-USD --horizon 50

    marketflow forecast train --features features.parquet --out forecast/
    """
    from marketflow import settings
    from marketflow.errors import ConfigurationError
    from marketflow.forecast.lake import Wish
    from marketflow.forecast.record import render
    from marketflow.stack import forecast as stack_forecast

    if (features is None) != (out is None):
        raise ConfigurationError("--features FILE and --out DIR go together")
    if features is not None and out is not None:
        if (start, end, snapshot) != (None, None, None):
            raise ConfigurationError("--start, --end and --snapshot are of the lake; a file is taken whole")
        kept = stack_forecast.train_on_file(features, out, horizon, product, venue)
    elif product is None:
        raise ConfigurationError("name a --product, or a file with --features and --out")
    else:
        kept = stack_forecast.train_on_lake(settings.load(), Wish(product, venue, horizon, start, end, snapshot))
    typer.echo(json.dumps(kept) if as_json else f"{render(kept)}\nkept in {kept['model_uri']}")


@app.command("list")
def list_runs(
    product: Product = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="How many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Every training on the lake: its rows, its accuracy, and whether it beats the baselines."""
    from marketflow import settings
    from marketflow.catalog import render
    from marketflow.stack import forecast as stack_forecast

    rows = stack_forecast.listed(settings.load(), product, limit)
    if as_json:
        typer.echo(json.dumps(rows, default=str, indent=1))
        return
    shown = ("run_id", "venue", "row_count", "accuracy", "settled_accuracy", "beats_baseline", "snapshot_id")
    short = [{name: row[name] for name in shown} for row in rows]
    typer.echo(render.records(short) if rows else "nothing was trained yet; `marketflow forecast train --help`")


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(help="A run_id of `marketflow forecast list`.")], as_json: Json = False
) -> None:
    """All that is known of one training; its stored model is held to the hash that was written down."""
    from marketflow import settings
    from marketflow.forecast.record import render
    from marketflow.stack import forecast as stack_forecast

    kept = stack_forecast.show(settings.load(), run)
    typer.echo(json.dumps(kept, indent=1) if as_json else f"{render(kept)}\nkept in {kept['model_uri']}")
