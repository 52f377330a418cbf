"""Carrying a notice to its target: a webhook that takes JSON (http, https), or anything that Apprise knows."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from marketflow.alerts.message import Notice
from marketflow.errors import AlertError

TIMEOUT_S = 5.0


def send(target: str, notice: Notice) -> None:
    """Deliver one notice.

    Raises:
        AlertError: the target did not take it; without the target's address, which may hold a token.
    """
    if urlsplit(target).scheme in ("http", "https"):
        _post(target, notice)
    else:
        _by_apprise(target, notice)


def _post(target: str, notice: Notice) -> None:
    request = urllib.request.Request(  # noqa: S310 - settings take http addresses here and no other
        target, json.dumps(notice.body, default=str).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            answer.read(1024)
    except urllib.error.HTTPError as error:
        raise AlertError(f"the webhook answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are; what answers may speak no HTTP
        raise AlertError(f"the webhook does not answer: {getattr(error, 'reason', None) or repr(error)}") from None


def _by_apprise(target: str, notice: Notice) -> None:
    import apprise

    kinds = {"critical": apprise.NotifyType.FAILURE, "warning": apprise.NotifyType.WARNING}
    kind = apprise.NotifyType.SUCCESS if notice.status == "resolved" else kinds[notice.severity]
    address = apprise.Apprise()
    address.add(target)
    # what went wrong is in its log alone
    with _Overheard() as said:
        taken = address.notify(
            body=notice.text, title=notice.title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
    if not taken:
        words = "; ".join(said.words) or "its library gave no reason"
        raise AlertError(f"{urlsplit(target).scheme}:// did not take it: {words[:300]}")


class _Overheard(logging.Handler):
    """What Apprise's logger warns of while the block lasts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())

    def __enter__(self) -> _Overheard:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)
