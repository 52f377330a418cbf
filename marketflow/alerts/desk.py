"""Telling once, and once more when it is over: the only door through which alerts go out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from marketflow.alerts import delivery, message
from marketflow.alerts.message import Alert, Notice
from marketflow.alerts.store import Book, Episode, book
from marketflow.errors import AlertError
from marketflow.settings import Settings

# somebody who was told at noon and did nothing is told again at midnight
REPEAT_AFTER = timedelta(hours=12)
NO_TARGET = "MARKETFLOW_ALERT_URL is not set"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one alert. `detail` says why nobody was told; `kept` where it is remembered."""

    key: str
    what: Literal["sent", "known", "not sent", "recovered", "recovery not sent", "nothing"]
    detail: str = ""
    kept: Literal["postgres", "file"] = "postgres"

    def __str__(self) -> str:
        """One line for the log."""
        return f"alert {self.key}: {self.what}{f' ({self.detail})' if self.detail else ''}, kept in {self.kept}"


def tell(settings: Settings, alert: Alert, *, now: datetime | None = None) -> Outcome:
    """Tell of an alert unless it was told already; one that the target did not take is tried again each time.

    A target that is broken, and a PostgreSQL that is away, are in the outcome and no error.
    """
    moment = now or datetime.now(UTC)
    with book(settings) as held:
        known = held.open(alert.key)
        if known is None:
            episode = Episode(
                alert_key=alert.key,
                opened_at=moment,
                severity=alert.severity,
                title=alert.title,
                body=json.dumps(alert.as_json(), default=str),
                last_seen_at=moment,
                times_seen=1,
                sent_at=None,
                failed_sends=0,
                last_error=None,
                closed_at=None,
                recovery_sent_at=None,
            )
        else:
            episode = replace(known, last_seen_at=moment, times_seen=known.times_seen + 1)
        worse = known is not None and alert.weight > json.loads(known.body).get("weight", 0)
        if not worse and episode.sent_at is not None and moment - episode.sent_at < REPEAT_AFTER:
            held.save(episode)
            return Outcome(alert.key, "known", f"told at {episode.sent_at:%Y-%m-%d %H:%M:%S} UTC", _kept(held))
        again = episode.sent_at is not None
        error = _deliver(settings, message.firing(alert, settings.dataset, episode.opened_at, again=again))
        if error is None:
            episode = replace(episode, sent_at=moment)
            if worse:  # its end says what it came to; one that was not taken is tried again by the next call
                episode = replace(episode, title=alert.title, body=json.dumps(alert.as_json(), default=str))
        else:
            episode = replace(episode, failed_sends=episode.failed_sends + bool(settings.alert_url), last_error=error)
        held.save(episode)
        return Outcome(alert.key, "not sent" if error else "sent", error or "", _kept(held))


def recover(settings: Settings, key: str, *, now: datetime | None = None) -> Outcome:
    """End the open alert of this key, if there is one, and say how long it lasted to whom it was told.

    What nobody was told of ends without a word. The word that it is over is tried once.
    """
    with book(settings) as held:
        return _end(settings, held, key, now or datetime.now(UTC))


def settle(
    settings: Settings,
    family: str,
    alerts: Iterable[Alert],
    *,
    well: Collection[str] | None = None,
    now: datetime | None = None,
) -> list[Outcome]:
    """Tell of these, and end every open alert whose key begins with `family` and is not among them.

    Where not everything could be looked at, only keys in `well` end.
    """
    present = list(alerts)
    outcomes = [tell(settings, alert, now=now) for alert in present]
    keys = {alert.key for alert in present}
    with book(settings) as held:
        open_keys = [one.alert_key for one in held.all_open() if one.alert_key.startswith(family)]
        over = [key for key in open_keys if key not in keys and (well is None or key in well)]
        return outcomes + [_end(settings, held, key, now or datetime.now(UTC)) for key in over]


def repeat_ends(settings: Settings, *, now: datetime | None = None) -> list[Outcome]:
    """Say once more what is over, where the target did not take the word; until it does, for twelve hours.

    One that it refuses again is the last of this call: the others would be refused too.
    """
    moment, outcomes = now or datetime.now(UTC), []
    if not settings.alert_url:
        return []
    with book(settings) as held:
        for known in held.unheard(moment - REPEAT_AFTER):
            assert known.closed_at is not None
            outcomes.append(_tell_end(settings, held, known, known.closed_at, moment))
            if outcomes[-1].what != "recovered":
                break
    return outcomes


def listed(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Alerts, open ones first and then the newest; only the open ones while PostgreSQL is away."""
    with book(settings) as held:
        episodes = held.newest(limit)
    names = ("alert_key", "title", "severity", "opened_at", "closed_at", "times_seen", "sent_at", "recovery_sent_at")
    return [{name: getattr(one, name) for name in (*names, "failed_sends", "last_error")} for one in episodes]


def _end(settings: Settings, held: Book, key: str, moment: datetime) -> Outcome:
    known = held.open(key)
    if known is None:
        return Outcome(key, "nothing", kept=_kept(held))
    if known.sent_at is None:  # nobody was told that it began
        held.save(replace(known, closed_at=moment))
        return Outcome(key, "recovered", kept=_kept(held))
    return _tell_end(settings, held, known, moment, moment)


def _tell_end(settings: Settings, held: Book, known: Episode, closed_at: datetime, moment: datetime) -> Outcome:
    body = json.loads(known.body) | {"dataset": settings.dataset}
    error = _deliver(settings, message.resolved(body, known.title, known.severity, known.opened_at, closed_at))
    episode = replace(known, closed_at=closed_at)
    if error is None:
        episode = replace(episode, recovery_sent_at=moment)
    else:
        episode = replace(episode, failed_sends=known.failed_sends + bool(settings.alert_url), last_error=error)
    held.save(episode)
    return Outcome(known.alert_key, "recovery not sent" if error else "recovered", error or "", _kept(held))


def _deliver(settings: Settings, notice: Notice) -> str | None:
    """None where the target took it, else why not."""
    if not settings.alert_url:
        return NO_TARGET
    try:
        delivery.send(settings.alert_url, notice)
    except AlertError as error:
        return str(error)
    return None


def _kept(held: Book) -> Literal["postgres", "file"]:
    return "file" if held.database_error else "postgres"
