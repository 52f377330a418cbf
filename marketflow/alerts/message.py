"""What an alert says, as data and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong. `key` says what is the same alert; `title` is a line, `cause` a sentence.

    `command` is what to run. `layer` and `age_s` (seconds) are of what is late, None for anything else. `more` is added
    to the JSON that a webhook gets. `weight` says how bad it is beside others of the same key: what has become heavier
    than what was told is told at once.
    """

    key: str
    title: str
    cause: str = ""
    command: str = ""
    severity: Severity = "critical"
    owner: str = ""
    layer: str | None = None
    age_s: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    weight: int = 0

    @property
    def text(self) -> str:
        """All of it in a few lines, for people."""
        lines = [self.title, *([self.cause] if self.cause else [])]
        return "\n".join([*lines, *([f"Run: {self.command}"] if self.command else [])])

    def as_json(self) -> dict[str, Any]:
        """For a webhook, without what only its sending knows."""
        plain = asdict(self)
        return {"text": self.text, **{name: value for name, value in plain.items() if name != "more"}, **self.more}


@dataclass(frozen=True, slots=True)
class Notice:
    """What is sent: an alert that fires, one that lasts or has become worse, or the word that it is over."""

    status: Literal["firing", "still firing", "resolved"]
    title: str
    text: str
    body: dict[str, Any]
    severity: Severity


def firing(alert: Alert, dataset: str, opened_at: datetime, *, again: bool = False) -> Notice:
    """The first word of an alert, or another one."""
    status: Literal["firing", "still firing"] = "still firing" if again else "firing"
    title = f"still: {alert.title}" if again else alert.title
    body = alert.as_json() | {"status": status, "dataset": dataset, "opened_at": opened_at.isoformat()}
    return Notice(status, title, alert.text, body, alert.severity)


def resolved(body: dict[str, Any], title: str, severity: Severity, opened_at: datetime, now: datetime) -> Notice:
    """The last word: `body` is what the first one said."""
    lasted = now - opened_at
    text = f"over after {spoken(lasted)}: {title}"
    said = body | {"status": "resolved", "text": text, "lasted_s": round(lasted.total_seconds(), 1)}
    return Notice("resolved", text, text, said | {"opened_at": opened_at.isoformat()}, severity)


def spoken(lasted: timedelta) -> str:
    """`2 h 5 min`, `3 min 20 s`, `4 s`."""
    seconds = int(lasted.total_seconds())
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
