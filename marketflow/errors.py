"""Every error marketflow raises on purpose, with what is needed to resume. Nothing is caught to be logged away."""

from __future__ import annotations


class MarketflowError(Exception):
    """Root of the tree: the message says what is wrong and what to do about it."""

    exit_code = 1


class SetupError(MarketflowError):
    """The machine or the installation lacks something; the message names it."""


class ConfigurationError(MarketflowError):
    """A setting is wrong; the message names it, its value and what is allowed."""

    exit_code = 2


class BusyError(MarketflowError):
    """Another process holds the lock; try again later (exit status 75, EX_TEMPFAIL)."""

    exit_code = 75


class FenceLostError(MarketflowError):
    """This writer no longer holds its lock and must not write any more."""


class LakeStateError(MarketflowError):
    """A table lacks what its contract promises (a watermark, a snapshot); going on would lose or double rows."""


class ContractError(MarketflowError):
    """A stored table differs from its contract in a way that is not an allowed evolution."""


class CrawlError(MarketflowError):
    """What lies in the bucket, or in the catalog, cannot be published as it is; the message names column and file."""


class AlertError(MarketflowError):
    """The target of alerts did not take one; the message says what it answered and never its address."""


class QualityError(MarketflowError):
    """A hard check failed; carries the checks' names and the command that mends it."""

    def __init__(self, message: str, *, checks: tuple[str, ...], cause: str, command: str, told: bool = False) -> None:
        """`cause` is what was found, in a sentence; `command` is what to run; `told`: alerts have gone out already."""
        super().__init__(message)
        self.told = told
        self.checks = checks
        self.cause = cause
        self.command = command


class VenueError(MarketflowError):
    """A venue answered in a way that cannot be used; carries the request and the status."""

    def __init__(self, message: str, *, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        """`http_status` and `retry_after_s` are None where the failure was not an HTTP answer."""
        super().__init__(message)
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class BannedError(VenueError):
    """The venue refuses this address or this country: asking again at once would only make it worse."""


class HistoryError(MarketflowError):
    """A page of a venue's REST history that cannot be true, or does not reach what was asked; what was asked and came.

    The page itself was published like every answer, and silver judges its items one by one.
    """

    def __init__(self, venue: str, product_id: str, request: str, detail: str) -> None:
        """`request` is what was asked, `detail` says what came."""
        super().__init__(f"{venue} {product_id}: {detail} (asked: {request})")
        self.venue = venue
        self.product_id = product_id
        self.request = request
        self.detail = detail


class PublishError(MarketflowError):
    """Kafka refused or lost a message that a feed had handed over."""


class VerificationError(MarketflowError):
    """`marketflow verify` found missing, duplicate, extra or differing rows."""


class InputError(MarketflowError):
    """A file that somebody gave lacks a column, or holds what its contract does not allow; the message says which."""

    exit_code = 2


class KernelError(MarketflowError):
    """A kernel was given rows that its contract excludes, or a result does not fit its column."""
