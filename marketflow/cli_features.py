"""`marketflow features …` and `marketflow metrics …`: the catalogue, and the kernels on files of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Trade features and targets: what there is, and of files of your own.", no_args_is_help=True)
metrics_app = typer.Typer(help="Short-term price metrics of files of your own.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write: .parquet or .csv.")]


@app.command("list")
def list_features(
    group: Annotated[str | None, typer.Option(help="Only this group: price, returns, volume, flow, …")] = None,
    as_json: Json = False,
) -> None:
    """Every feature and target with its formula, unit, null rule, lookback and horizon."""
    from marketflow.errors import ConfigurationError
    from marketflow.features.trades.catalogue import CATALOGUE
    from marketflow.features.trades.feature import GROUPS

    if group is not None and group not in GROUPS:
        raise ConfigurationError(f"--group {group}: there is {', '.join(GROUPS)}")
    found = [one for one in CATALOGUE.values() if group in (None, one.group)]
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found], indent=1, ensure_ascii=False))
        return
    for one in found:
        reach = f"{one.horizon} ahead" if one.reads_future else f"{one.lookback} back"
        unit = f" [{one.unit}]" if one.unit else ""
        typer.echo(f"{one.name:<26} {one.group:<9} {reach:>9}  {one.description}{unit}")


@app.command("build")
def build(
    trades: Annotated[Path, typer.Option(help="Trades, with the columns of silver.trades (docs/tables.md).")],
    out: Out,
    quotes: Annotated[
        Path | None,
        typer.Option(help="Quotes, with the columns of silver.quotes; without them their features are null."),
    ] = None,
    keep_warmup: Annotated[
        bool, typer.Option("--keep-warmup", help="Keep rows with fewer than 500 trades before them, with nulls.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Features and targets of a file of trades: .parquet or .csv in, .parquet or .csv out.

    marketflow features build --trades trades.parquet --quotes quotes.parquet --out features.parquet

    The same kernel as gold.trade_features. Trades of several venues and products may stand in one file, in any order.
    """
    from marketflow.features.offline import build_features

    report = build_features(trades, out, quotes, keep_warmup=keep_warmup, say=lambda text: typer.echo(text, err=True))
    typer.echo(json.dumps(report.as_dict()) if as_json else f"{report.rows:,} rows in {report.out}")


@app.command("read")
def read(
    product: Annotated[str, typer.Argument(help="A product, e.g. BTC-USD.")],
    out: Out,
    start: Annotated[str | None, typer.Option(help="Start, inclusive: 2026-11-20T05:00Z, or 2026-11-20.")] = None,
    end: Annotated[str | None, typer.Option(help="End, exclusive.")] = None,
    venue: Annotated[str | None, typer.Option(help="Only this venue, e.g. coinbase_exchange.")] = None,
    snapshot: Annotated[int | None, typer.Option(help="An id that an earlier read named: the same rows again.")] = None,
    as_json: Json = False,
) -> None:
    """Rows of gold.trade_features into a file, and the id of the snapshot they are of.

    marketflow features read BTC-USD --start 2026-11-20 --out features.parquet
    """
    from marketflow.catalog.load import load
    from marketflow.features import files

    loaded = load("gold.trade_features", product, start, end, venue=venue, snapshot=snapshot)
    rows = files.write(out, [loaded.frame], loaded.frame.schema)
    said = {"out": str(out), "rows": rows, "snapshot_id": loaded.snapshot_id}
    typer.echo(json.dumps(said) if as_json else f"{rows:,} rows of snapshot {loaded.snapshot_id} in {out}")


@metrics_app.command("build")
def build_price_metrics(
    prices: Annotated[Path, typer.Option(help="Prices, with the columns of silver.asset_prices (docs/tables.md).")],
    out: Out,
    as_json: Json = False,
) -> None:
    """Change, mean, exponential mean and volatility of each price: .parquet or .csv in, .parquet or .csv out.

    marketflow metrics build --prices prices.csv --out metrics.parquet

    The same kernel as gold.price_metrics.
    """
    from marketflow.features.offline import build_metrics

    report = build_metrics(prices, out)
    typer.echo(json.dumps(report.as_dict()) if as_json else f"{report.rows:,} rows in {report.out}")
