"""`marketflow quality …`, `alerts …` and `publish`: is the data good, who was told, what is shown."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from marketflow.cli_options import MOST_HOURS, MOST_ROWS, finite

app = typer.Typer(help="Checks of the data: what there is, ask them, what they found.", no_args_is_help=True)
alerts_app = typer.Typer(help="Who is told of what is wrong, and for how long it lasted.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]


def _settings() -> Any:
    from marketflow import settings

    return settings.load()


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    from marketflow.catalog import render

    typer.echo(json.dumps(rows, default=str, indent=1) if as_json else render.records(rows))


@app.command("list")
def list_checks(as_json: Json = False) -> None:
    """Every check: how severe, whose, what it looks at, and whether it keeps rows out of PostgreSQL."""
    from marketflow.quality.run import every_check

    rows = [
        {
            "check": one.name,
            "severity": one.severity,
            "owner": one.owner,
            "subject": one.subject,
            "gate": one.gates,
            "holds that": one.purpose,
        }
        for one in every_check()
    ]
    _show(rows, as_json)


@app.command("run")
def run(
    check: Annotated[list[str] | None, typer.Argument(help="Names of checks; all of them without.")] = None,
    hours: Annotated[
        float,
        typer.Option(min=0.01, max=MOST_HOURS, callback=finite, help="Look at what happened in the last N hours."),
    ] = 26.0,
    judged_hours: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=MOST_HOURS,
            callback=finite,
            help="The same for the checks that verify answers, which cost more.",
        ),
    ] = 2.0,
    tell: Annotated[bool, typer.Option(help="Send alerts, and end those that are over.")] = False,
    as_json: Json = False,
) -> None:
    """Ask the checks and record what they find. Exit status 1 where a hard check fails or PostgreSQL is away."""
    from marketflow.quality import run as quality

    found = quality.run(
        _settings(), names=check or (), hours=hours, judged_hours=judged_hours, tell=tell, say=_say_on_stderr
    )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), default=str, indent=1))
    else:
        for one in found.results:
            typer.echo(f"{one.outcome.upper():8}  {one.check.severity}  {one.name}: {one.detail}")
            if one.outcome == "failed":
                typer.echo(f"          a failing row {one.check.meaning}\n          to do: {one.check.remedy}")
    raise typer.Exit(0 if found.healthy else 1)


@app.command("history")
def history(
    check: Annotated[str | None, typer.Argument(help="Only this check.")] = None,
    by_day: Annotated[bool, typer.Option("--trend", help="By day: runs, share that passed, failing rows.")] = False,
    days: Annotated[int, typer.Option(min=1, max=90, help="With --trend: how many days.")] = 14,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="How many results, newest first.")
    ] = 20,
    table: Annotated[str | None, typer.Option(help="Only checks of this table, e.g. gold.bars.")] = None,
    as_json: Json = False,
) -> None:
    """What the checks found before, newest first; --trend says whether it gets better."""
    from marketflow.errors import ConfigurationError
    from marketflow.quality.run import every_check
    from marketflow.warehouse import quality_results

    if check is not None and check not in {one.name for one in every_check()}:
        raise ConfigurationError(f"no check {check}; `marketflow quality list` shows them")
    tables = sorted({one.subject for one in every_check()})
    if table is not None and table not in tables:
        raise ConfigurationError(f"--table {table}: there are checks of {', '.join(tables)}")
    if by_day:
        _show(quality_results.trend(_settings(), check, days, subject=table), as_json)
    else:
        _show(quality_results.history(_settings(), check, limit, subject=table), as_json)


@alerts_app.command("list")
def list_alerts(
    rows: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_ROWS, help="How many, open ones first.")] = 20,
    as_json: Json = False,
) -> None:
    """What is wrong now and was before: since when, for how long, and whether somebody could be told."""
    from marketflow.alerts import desk

    _show(desk.listed(_settings(), rows), as_json)


@alerts_app.command("check")
def check_alerts() -> None:
    """Look at every layer's lateness now, tell of it, and end what is over. Exit status 1 where a layer is late.

    Dag quality does it every 15 minutes. Where the scheduler itself may be away, let cron call this.
    """
    from marketflow.quality.run import tell_of_lateness

    found, told = tell_of_lateness(_settings(), say=_say_on_stderr)
    if not found and told:
        typer.echo("no layer is late")
    for one in found:
        typer.echo(f"{one.title}\n  {one.cause}\n  run: {one.command}")
    raise typer.Exit(0 if told and not found else 1)


@alerts_app.command("end")
def end_alert(
    key: Annotated[str, typer.Argument(help="Its alert_key in `marketflow alerts list`.")],
) -> None:
    """Say that an alert is over, where nothing else will: a failed run by hand that nobody will repeat.

    What is still wrong is told again, as a new alert.
    """
    from marketflow.alerts import desk
    from marketflow.errors import ConfigurationError

    outcome = desk.recover(_settings(), key)
    if outcome.what == "nothing":
        raise ConfigurationError(f"no alert {key} is open; `marketflow alerts list` shows them")
    typer.echo(str(outcome))


@alerts_app.command("test")
def test_alerts() -> None:
    """Send an alert and its end to MARKETFLOW_ALERT_URL, so that one knows that it arrives."""
    from marketflow.alerts import desk
    from marketflow.alerts.message import Alert
    from marketflow.errors import AlertError

    configuration = _settings()
    alert = Alert("test", "a test of marketflow's alerts", "Nothing is wrong.", "nothing", severity="warning")
    outcomes = [desk.tell(configuration, alert), desk.recover(configuration, alert.key)]
    for outcome in outcomes:
        typer.echo(str(outcome))
    if [outcome.what for outcome in outcomes] != ["sent", "recovered"]:
        raise AlertError(f"it did not arrive: {outcomes[0].detail or outcomes[1].detail}")


def publish(
    table: Annotated[list[str] | None, typer.Argument(help="gold.bars, …; all published tables without.")] = None,
    as_json: Json = False,
) -> None:
    """Bring PostgreSQL's copy of gold up to the lake now; where a hard check fails nothing of that table changes."""
    from marketflow.contracts.gold import GOLD_TABLES
    from marketflow.warehouse.publish import publish as publish_table

    configuration = _settings()
    for name in table or [one.qualified for one in GOLD_TABLES]:
        done = publish_table(configuration, name).as_dict()
        typer.echo(json.dumps(done) if as_json else f"{name}: {done['rows']} rows of {done['hours']} hours")


def _say_on_stderr(text: str) -> None:
    typer.echo(text, err=True)
