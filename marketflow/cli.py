"""`marketflow …`: what a person types. Every command is thin; the work is in the library."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from marketflow import __version__, cli_catalog, cli_features, cli_forecast, cli_quality, cli_venue, settings
from marketflow.cli_options import MOST_ROWS
from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError, MarketflowError

app = typer.Typer(
    help="A market-data platform for crypto on one machine: start it, look at it, ask it, check it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
quarantine_app = typer.Typer(help="Rejected items: what was refused, why, and its bytes.", no_args_is_help=True)
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(cli_venue.app, name="venue")
app.add_typer(cli_features.app, name="features")
app.add_typer(cli_features.metrics_app, name="metrics")
app.add_typer(cli_forecast.app, name="forecast")
app.add_typer(cli_catalog.export_app, name="export")
app.command("crawl")(cli_catalog.crawl)
app.add_typer(cli_quality.app, name="quality")
app.add_typer(cli_quality.alerts_app, name="alerts")
app.command("publish")(cli_quality.publish)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]


def _emit(value: Any, as_json: bool, text: Callable[[], None], indent: int | None = 1) -> None:
    if as_json:
        typer.echo(json.dumps(_plain(value), default=str, indent=indent, allow_nan=False))
    else:
        text()


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity, which become null, nor bytes, which become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _version(show: bool) -> None:
    if show:
        typer.echo(f"marketflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Settings are MARKETFLOW_* variables or lines of .env; .env.example explains each."""


@app.command()
def up() -> None:
    """Start everything and wait for the first live rows. Safe to run again."""
    from marketflow.stack import up as stack_up

    stack_up.run(settings.load(), typer.echo)


@app.command()
def down() -> None:
    """Stop every process of the stack, in order, and wait until none is left."""
    from marketflow.stack import down as stack_down

    stack_down.run(settings.load(), typer.echo)


@app.command()
def bootstrap() -> None:
    """Make what a dataset needs: roles, databases, tables, topics, bucket. Safe to run again; `up` does it itself."""
    from marketflow.stack import replay

    configuration = settings.load()
    replay.wait_for_servers(configuration)
    replay.prepare_dataset(configuration)
    typer.echo(f"dataset {configuration.dataset}: database, topics and bucket are there")


@app.command()
def status(as_json: Json = False) -> None:
    """Services, layers, lag, free disk and the hours of outage left. Exit status 1 when something is wrong."""
    from marketflow.stack import status as stack_status

    found = stack_status.collect(settings.load())
    _emit(found.as_dict(), as_json, lambda: typer.echo(stack_status.render(found)))
    raise typer.Exit(0 if found.healthy else 1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is wrong with a sick stack and what to do about it."""
    from marketflow.stack import doctor as stack_doctor

    findings = stack_doctor.examine(settings.load())
    _emit([f.as_dict() for f in findings], as_json, lambda: typer.echo(stack_doctor.render(findings)))
    raise typer.Exit(1 if any(finding.problem for finding in findings) else 0)


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A service of `marketflow status`, e.g. market-stream.")],
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, max=MOST_ROWS, help="How many of the newest lines.")
    ] = 50,
) -> None:
    """Print the newest log lines of one service."""
    from marketflow.stack.backend import backend

    typer.echo("\n".join(backend(settings.load()).logs(service, lines)))


@app.command()
def sources(as_json: Json = False) -> None:
    """Each source's last message, rate, reconnects, queue, open gaps and quota."""
    from datetime import UTC, datetime

    from marketflow.stack import sources as view

    found = view.collect(settings.load())
    _emit([view.as_dict(one) for one in found], as_json, lambda: typer.echo(view.render(found, datetime.now(UTC))))


@app.command()
def gaps(
    show_all: Annotated[bool, typer.Option("--all", help="Healed ones and those that cannot be, too.")] = False,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="How many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List the gap ledger: which trades are missing, since when and why."""
    from marketflow.catalog import render
    from marketflow.warehouse import ledger
    from marketflow.warehouse.connection import connect

    with connect(settings.load(), "marketflow_reader") as connection:
        rows = ledger.listed(connection, open_only=not show_all, product_id=product, limit=limit)
        known = {*PRODUCTS, *ledger.products(connection)}
        if product is not None and product not in known:
            raise ConfigurationError(f"--product {product}: there is {', '.join(sorted(known))}")
    _emit(rows, as_json, lambda: typer.echo(render.records(rows)))


@app.command()
def heal(
    venue: Annotated[str | None, typer.Option(help="Only this venue, e.g. coinbase_exchange.")] = None,
    product: Annotated[str | None, typer.Option(help="Only this product.")] = None,
    first: Annotated[
        int | None, typer.Option(min=0, help="With --last: these trade ids, whoever works on them.")
    ] = None,
    last: Annotated[int | None, typer.Option(min=0, help="With --first.")] = None,
    redo: Annotated[bool, typer.Option("--redo-unrecoverable", help="Try again what was given up.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
) -> None:
    """Find missing trades in silver and fill them from the venues' history. Exit status 1 when some are still missing.

    Producers heal by themselves what they see; Dag heal_gaps does this every ten minutes.
    """
    from marketflow.stack import heal as stack_heal

    wish = stack_heal.Wish(venue, product, first, last, redo)
    report = stack_heal.heal_holes(settings.load(), wish, dry_run=dry_run, say=typer.echo)
    typer.echo(str(report))
    raise typer.Exit(0 if report.healthy else 1)


@app.command()
def backfill(
    venue: Annotated[
        str | None, typer.Option(help="coinbase_exchange, binance, coinbase_advanced; for candles cryptocompare, too.")
    ] = None,
    product: Annotated[str | None, typer.Option(help="A product of that venue, such as BTC-USD or BTC-USDT.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Start, inclusive: 2026-11-20T05:00Z, or 2026-11-20. UTC where no zone is said.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End, exclusive; not in the future.")] = None,
    candles: Annotated[
        str | None, typer.Option(help="Candles of 1m, 5m, 15m, 1h, 6h or 1d as the venue reports them, not trades.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start over what is done or half done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls it would be, write nothing.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show what was asked for and how far it is.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a venue's trades or candles of an interval, through Kafka and every layer like anything else.

    Trades:   marketflow backfill --venue binance --product BTC-USDT --start 2026-11-20T05:00Z --end 2026-11-20T06:00Z

    Candles:  the same with --candles 1m

    It may be stopped or killed at any moment: the same command goes on where it was. What is there already stays as it
    is, once. Dag backfill_history does the same. Exit status: 0 done, 1 failed and may be gone on with, 2 a wrong
    argument, 75 another process is at that interval.
    """
    from marketflow.stack import backfill as stack_backfill

    configuration = settings.load()
    if show_list:
        rows = stack_backfill.listed(configuration)
        _emit(rows, as_json, lambda: typer.echo(stack_backfill.render(rows)))
        return
    given = stack_backfill.Given(venue, product, start, end, candles)
    with redirect_stdout(sys.stderr):  # what the client logs; stdout is the report's alone
        report = stack_backfill.run(configuration, given, again=again, dry_run=dry_run, say=_say_on_stderr)
    _emit(report.as_dict(), as_json, lambda: typer.echo(str(report)))


@app.command()
def movers(
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow: print again with every new snapshot; with --json a line each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The five gainers and five losers of the last five minutes, or how far the warm-up is."""
    from marketflow.catalog import movers as view

    def show(found: view.Movers) -> None:
        _emit(found.as_dict(), as_json, lambda: typer.echo(view.render(found)), indent=None if watch else 1)

    configuration = settings.load()
    if watch:
        view.watch(configuration, show)
    else:
        show(view.latest(configuration))


@app.command()
def sql(
    statement: Annotated[str | None, typer.Argument(help="A statement, or the name of a saved query.")] = None,
    lake: Annotated[bool, typer.Option("--lake", help="Ask the lake (DuckDB on Iceberg), not PostgreSQL.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the saved queries.")] = False,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="A saved query's parameter: -s product=ETH-USD")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run SQL, read-only: on PostgreSQL's mart views by default, on the lake with --lake."""
    from marketflow.catalog import queries, render

    if show_list or not statement:
        found = queries.saved_queries()
        listing = [
            {"name": q.name, "engine": q.engine, "purpose": q.purpose, "parameters": q.parameters}
            for q in found.values()
        ]
        _emit(listing, as_json, lambda: typer.echo(render.saved_queries(found)))
        return
    configuration = settings.load()
    if statement in queries.saved_queries():
        result = queries.run_saved(configuration, statement, _assignments(parameter or []))
    else:
        queries.refuse_misspelt(statement)
        if parameter:
            raise ConfigurationError("--set is for saved queries; `marketflow sql --list` shows them")
        result = (queries.run_on_lake if lake else queries.run_on_postgres)(configuration, statement)
    names = render.distinct(result.columns)
    rows = [dict(zip(names, row, strict=True)) for row in result.rows]
    _emit(rows, as_json, lambda: typer.echo(render.table(result.columns, result.rows)))


def _assignments(texts: list[str]) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise ConfigurationError(f"--set takes name=value, not {wrong[0]!r}")
    return dict(text.split("=", 1) for text in texts)


@app.command()
def connect(
    show_passwords: Annotated[
        bool, typer.Option("--show-passwords", help="Print the reader's password instead of where it is.")
    ] = False,
) -> None:
    """Print ready lines for psql, pandas, Polars, DuckDB and a BI tool."""
    from marketflow.catalog.connect import lines

    typer.echo(lines(settings.load(), show_passwords=show_passwords))


@app.command()
def verify(
    as_json: Json = False,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="Nothing is running: judge all data, do not judge its age.")
    ] = False,
    truth: Annotated[Path | None, typer.Option("--truth", help="Folder of truth files, if not the home's own.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", help="Only what arrived in the last N hours.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only what arrived from this time on (ISO 8601).")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Comma-separated: bronze, silver, gold, postgres, live.")
    ] = None,
) -> None:
    """Compare every layer with the simulator's truth, by code that shares nothing with what it judges."""
    from marketflow.verify.command import main as judge

    arguments = [*(["--json"] if as_json else []), *(["--at-rest"] if at_rest else [])]
    arguments += ["--truth", str(truth)] if truth else []
    arguments += ["--hours", str(hours)] if hours is not None else []
    arguments += ["--since", since] if since else []
    arguments += ["--layers", layers] if layers else []
    raise typer.Exit(judge(arguments))


@app.command()
def replay(
    files: Annotated[
        list[str], typer.Argument(help="Captures: NDJSON, JSON bodies, Parquet; or s3://… of `export raw`.")
    ],
    venue: Annotated[
        str | None, typer.Option(help="Where the file does not say: coinbase_exchange, coingecko.")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Where the file does not say: matches, ticker, markets.")] = None,
    product: Annotated[str | None, typer.Option(help="Canonical product where the file does not say.")] = None,
    vs_currency: Annotated[str | None, typer.Option(help="Quote currency of aggregator pages.")] = None,
    interval: Annotated[str | None, typer.Option(help="Length of candles where the file does not say: 1m, 5m.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Empty the replay dataset first.")] = False,
    as_json: Json = False,
) -> None:
    """Send recorded payloads through every layer in dataset `replay`, and account for each message and item."""
    from marketflow.stack import replay as stack_replay

    options = {"venue": venue, "channel": channel, "product": product, "vs_currency": vs_currency}
    options["interval"] = interval
    found = stack_replay.run(settings.load(dataset="replay"), files, fresh=fresh, say=_say_on_stderr, **options)
    _emit(found.as_dict(), as_json, lambda: typer.echo(stack_replay.render(found)))
    raise typer.Exit(0 if found.balanced else 1)


def _say_on_stderr(text: str) -> None:
    typer.echo(text, err=True)


@quarantine_app.command("show")
def quarantine_show(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="How many rows, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List rejected items with reason, sentence and bytes."""
    from marketflow.catalog import render
    from marketflow.lake import quarantine

    rows = quarantine.show(settings.load(), reason=reason, limit=limit)
    _emit(rows, as_json, lambda: typer.echo(render.records(rows)))


@quarantine_app.command("redrive")
def quarantine_redrive(
    reason: Annotated[str | None, typer.Option(help="Only items rejected for this reason.")] = None,
) -> None:
    """Parse rejected messages again after a fix; what parses now moves to its table."""
    from marketflow.catalog import render
    from marketflow.lake import quarantine
    from marketflow.lake.session import spark

    configuration = settings.load()
    session = spark(configuration, "quarantine_redrive")
    try:
        typer.echo(render.records([asdict(one) for one in quarantine.redrive(session, configuration, reason=reason)]))
    finally:
        session.stop()


def main() -> None:
    """Entry point: an error of ours is one line and its own exit status, never a traceback."""
    try:
        app()
    except MarketflowError as error:
        typer.echo(f"marketflow: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
