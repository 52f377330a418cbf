"""`marketflow venue …`: what a person types to add a venue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

app = typer.Typer(help="The venues whose messages are collected: add one.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Keeps `new` a command of its own."""


@app.command("new")
def venue_new(
    name: Annotated[str, typer.Argument(help="Lower case, as settings and topics will call it, e.g. kraken.")],
    kind: Annotated[
        Literal["feed", "prices"], typer.Option(help="feed: a WebSocket of trades. prices: pages that are polled.")
    ] = "feed",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")] = False,
) -> None:
    """Write a new venue that works for an example message: parser, judge's reader, simulator's wire, tests, entries.

    It stays off until MARKETFLOW_SOURCES names it. Put the venue's documented facts and a real capture in the
    example's place; its tests say what is missing. CONTRIBUTING.md says in which order, and what holds a venue.
    """
    from marketflow.venues import scaffold

    plan = scaffold.planned(name, kind, datetime.now(UTC).date())
    if not dry_run:
        plan.write()
    typer.echo(plan.render(written=not dry_run))
