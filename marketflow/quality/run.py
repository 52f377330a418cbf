"""One run over the checks: asked, recorded, told. `marketflow quality run` and Dag quality are this."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg

from marketflow.alerts import desk
from marketflow.alerts.message import Alert
from marketflow.errors import ConfigurationError, QualityError
from marketflow.quality import lake, late
from marketflow.settings import Settings
from marketflow.warehouse import checks, quality_results
from marketflow.warehouse.checks import Check, Result
from marketflow.warehouse.connection import connect

# a day and what may come late to it
HOURS = 26.0
# the judge computes what it looks at anew, so it looks at less
JUDGED_HOURS = 2.0
FRESHNESS = Check(
    name="layers_are_fresh",
    severity="soft",
    owner="market-data",
    subject="ops.layer_freshness",
    gates=False,
    purpose="every layer is complete up to what its Dag promises, and something new reaches silver.",
    meaning="is a layer that is late, with its age and the cause that was found",
    remedy="the command that stands with the layer",
)
POSTGRES_KEY = "postgres:away"
UNASKED_KEY = "quality:unasked"
# a lake that is away for a run or two is told of by what writes it
UNASKED_FOR = timedelta(hours=1)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found. `recorded` is False where PostgreSQL was away, so that there is no history of it.

    `told`: each failed check went to the desk of alerts.
    """

    run_id: str
    results: list[Result]
    recorded: bool
    told: bool = False

    @property
    def refused(self) -> list[Result]:
        """Hard checks that failed."""
        return [result for result in self.results if result.keeps_rows_out]

    @property
    def healthy(self) -> bool:
        """Whether no hard check failed and PostgreSQL could be asked."""
        return self.recorded and not self.refused

    def as_dict(self) -> dict[str, Any]:
        """For --json and a task's result."""
        counts = {name: sum(one.outcome == name for one in self.results) for name in ("passed", "failed", "unjudged")}
        results = [one.as_dict() for one in self.results]
        return {"run_id": self.run_id, "recorded": self.recorded, **counts, "results": results}

    def raise_if_refused(self) -> None:
        """Fail for whoever runs this as a task.

        Raises:
            QualityError: a hard check failed; the message names each with its first row and what to do.
        """
        if not self.refused:
            return
        words = [f"{one.name}: {one.detail}. To do: {one.check.remedy}" for one in self.refused]
        names = tuple(one.name for one in self.refused)
        command = f"marketflow quality history {names[0]}"
        raise QualityError(" | ".join(words), checks=names, cause=words[0], command=command, told=self.told)


def every_check() -> list[Check]:
    """All checks by name, whoever asks them."""
    found = [*checks.sql_checks(), *lake.sql_checks(), *lake.VERIFIED, FRESHNESS]
    return sorted(found, key=lambda check: check.name)


def run(
    settings: Settings,
    *,
    names: Collection[str] = (),
    hours: float = HOURS,
    judged_hours: float = JUDGED_HOURS,
    run_id: str | None = None,
    tell: bool = True,
    say: Say = lambda line: None,
) -> Report:
    """Ask the checks of these names (all without names) of the last `hours`, record what they found, tell of failures.

    `judged_hours` is how far back the judge looks. `tell=False` sends no alert and ends none.

    Raises:
        ConfigurationError: there is no check of such a name.
    """
    chosen = _chosen(names)
    asked = run_id or f"manual {uuid4()}"
    since = datetime.now(UTC) - timedelta(hours=hours)
    try:
        results = _in_postgres(settings, [one for one in chosen if one in checks.sql_checks()], since)
        results += _freshness(settings) if FRESHNESS in chosen else []
        results += lake.run_sql(settings, [one for one in chosen if one in lake.sql_checks()], since)
        results += lake.run_verify(settings, [one for one in chosen if one in lake.VERIFIED], judged_hours)
        with connect(settings) as connection:
            quality_results.record(connection, results, asked, "scheduled")
            quality_results.trim(connection)
            unasked = quality_results.unasked(connection, UNASKED_FOR)
    except psycopg.OperationalError as error:
        why = f"PostgreSQL does not answer: {str(error).strip()}"
        report = Report(asked, [checks.unasked(one, why) for one in chosen], recorded=False)
        if tell:
            away = Alert(POSTGRES_KEY, "PostgreSQL does not answer", why, "marketflow logs postgres")
            say(str(desk.tell(settings, away)))
        return report
    if tell:
        _tell(settings, results, say)
        if not names:
            _tell_of_unasked(settings, unasked, say)
    return Report(asked, results, recorded=True, told=tell)


def _chosen(names: Collection[str]) -> list[Check]:
    known = {check.name: check for check in every_check()}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigurationError(f"no check {', '.join(unknown)}; `marketflow quality list` shows them")
    return [check for name, check in known.items() if not names or name in names]


def _in_postgres(settings: Settings, chosen: Sequence[Check], since: datetime) -> list[Result]:
    """Each in a transaction of its own, so that one that breaks leaves the others."""
    results = []
    with connect(settings, "marketflow_reader", autocommit=True) as connection:
        connection.execute(f"set statement_timeout = {checks.TIMEOUT_MS}")
        connection.execute("set default_transaction_read_only = on")
        for check in chosen:
            try:
                results.append(checks.run(connection, check, since))
            except psycopg.OperationalError as error:
                if connection.broken or connection.closed:
                    raise
                results.append(checks.unasked(check, str(error)))
            except psycopg.Error as error:
                results.append(checks.unasked(check, str(error)))
    return results


def _freshness(settings: Settings) -> list[Result]:
    found = late.find(settings)
    words = "; ".join(f"{one.table} ({one.age_s / 60:.0f} min): {one.cause}" for one in found)
    sample = tuple({"table": one.table, "age_s": one.age_s, "cause": one.cause, "run": one.command} for one in found)
    outcome: Any = "failed" if found else "passed"
    return [Result(FRESHNESS, datetime.now(UTC), outcome, words or "every layer is fresh", len(found), sample)]


def tell_of_lateness(
    settings: Settings, *, now: datetime | None = None, say: Say = lambda line: None
) -> tuple[list[late.Late], bool]:
    """Tell of each late layer with its cause and what to run, and of those that are late no more.

    Returns the late ones, and whether PostgreSQL could be asked; that it could not is told as well.
    """
    try:
        found = late.find(settings, now=now)
    except psycopg.OperationalError as error:
        away = Alert(POSTGRES_KEY, "PostgreSQL does not answer", str(error).strip(), "marketflow logs postgres")
        say(str(desk.tell(settings, away, now=now)))
        return [], False
    outcomes = [desk.recover(settings, POSTGRES_KEY, now=now)]
    outcomes += desk.settle(settings, "layer:", late.alerts(found), now=now)
    for outcome in outcomes:
        if outcome.what != "nothing":
            say(str(outcome))
    return found, True


def _tell(settings: Settings, results: Sequence[Result], say: Say) -> None:
    """A failed check is an alert until it passes; one that could not be judged ends none."""
    outcomes = [desk.recover(settings, POSTGRES_KEY)]
    for result in results:
        if result.check is FRESHNESS:
            continue  # each late layer is an alert of its own
        if result.outcome == "failed":
            outcomes.append(desk.tell(settings, _alert(result)))
        elif result.outcome == "passed":
            outcomes.append(desk.recover(settings, f"quality:{result.name}"))
    for outcome in outcomes:
        if outcome.what != "nothing":
            say(str(outcome))


def _tell_of_unasked(settings: Settings, found: Sequence[quality_results.Unasked], say: Say) -> None:
    """Hard checks that could not be asked for an hour are one alert: nobody may take their silence for good news."""
    if not found:
        outcome = desk.recover(settings, UNASKED_KEY)
    else:
        words = "; ".join(f"{one.name} since {one.since:%m-%d %H:%M} UTC: {one.why}" for one in found)
        title = f"{len(found)} hard {'check' if len(found) == 1 else 'checks'} could not be asked for an hour"
        command = f"marketflow quality history {found[0].name}"
        outcome = desk.tell(settings, Alert(UNASKED_KEY, title, words, command, weight=len(found)))
    if outcome.what != "nothing":
        say(str(outcome))


def _alert(result: Result) -> Alert:
    return Alert(
        key=f"quality:{result.name}",
        title=f"{result.check.severity} check {result.name} of {result.check.subject} failed",
        cause=f"{result.detail}. A failing row {result.check.meaning}",
        command=f"marketflow quality history {result.name}; to do: {result.check.remedy}",
        severity="critical" if result.check.severity == "hard" else "warning",
        owner=result.check.owner,
        more={"failing_rows": result.failing_rows, "sample": list(result.sample)},
    )
