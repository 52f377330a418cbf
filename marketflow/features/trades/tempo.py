"""How fast trades follow each other, and what time it is."""

from __future__ import annotations

import math

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features.trades.feature import feature
from marketflow.features.trades.tape import ago

SECOND_US = 1_000_000
DAY_S = 86_400
# 1970-01-05 was a Monday
_MONDAY_S = 4 * DAY_S


@feature("seconds_since_previous", group="tempo", inputs=["event_ts"], lookback=1)
def seconds_since_previous() -> pl.Expr:
    """Time since the trade before; negative where the venue's times run against its ids.

    Formula: event_ts(t) − event_ts(t−1).
    Unit: seconds.
    Null: until 2 trades exist.
    Source: by definition.
    """
    return (pl.col("event_us") - ago("event_us", 1)) / SECOND_US


@feature(
    "trades_per_second_{w}", group="tempo", inputs=["event_ts"], windows=(10, 50, 100, 500), lookback=lambda w: w - 1
)
def trades_per_second(window: int) -> pl.Expr:
    """Pace of the last {w} trades.

    Formula: ({w} − 1) / (event_ts(t) − event_ts(t−{w}+1)).
    Unit: trades per second.
    Null: until {w} trades exist, and where the last of them is not later than the first.
    Source: by definition.
    """
    passed = pl.col("event_us") - ago("event_us", window - 1)
    return pl.when(passed > 0).then((window - 1) * SECOND_US / passed)


@feature("hour_of_day", group="time", inputs=["event_ts"], type=Type.INTEGER)
def hour_of_day() -> pl.Expr:
    """Hour of the day, UTC, 0 to 23.

    Formula: hour of event_ts.
    Unit: hours.
    Null: never.
    Source: by definition.
    """
    return pl.col("event_ts").dt.hour()


@feature("day_of_week", group="time", inputs=["event_ts"], type=Type.INTEGER)
def day_of_week() -> pl.Expr:
    """Day of the week, UTC, 0 (Monday) to 6 (Sunday).

    Formula: ISO weekday of event_ts − 1.
    Unit: days.
    Null: never.
    Source: Python's datetime.weekday.
    """
    return pl.col("event_ts").dt.weekday() - 1


@feature("is_weekend", group="time", inputs=["event_ts"], type=Type.BOOLEAN)
def is_weekend() -> pl.Expr:
    """Whether it is Saturday or Sunday, UTC.

    Formula: day_of_week ≥ 5.
    Unit: none.
    Null: never.
    Source: by definition.
    """
    return pl.col("event_ts").dt.weekday() > 5


def _turn(period_s: int, since_s: int = 0) -> pl.Expr:
    """The angle of event_ts in a period that began `since_s` after the epoch."""
    return ((pl.col("event_us") - since_s * SECOND_US) % (period_s * SECOND_US)) * (
        2 * math.pi / (period_s * SECOND_US)
    )


@feature("hour_sin", group="time", inputs=["event_ts"])
def hour_sine() -> pl.Expr:
    """Time of day as a point on a circle: its sine.

    Formula: sin(2π·seconds since midnight UTC / 86,400).
    Unit: none, −1 to 1.
    Null: never.
    Source: by definition.
    """
    return _turn(DAY_S).sin()


@feature("hour_cos", group="time", inputs=["event_ts"])
def hour_cosine() -> pl.Expr:
    """Time of day as a point on a circle: its cosine.

    Formula: cos(2π·seconds since midnight UTC / 86,400).
    Unit: none, −1 to 1.
    Null: never.
    Source: by definition.
    """
    return _turn(DAY_S).cos()


@feature("weekday_sin", group="time", inputs=["event_ts"])
def weekday_sine() -> pl.Expr:
    """Time of week as a point on a circle: its sine.

    Formula: sin(2π·seconds since Monday's midnight UTC / 604,800).
    Unit: none, −1 to 1.
    Null: never.
    Source: by definition.
    """
    return _turn(7 * DAY_S, _MONDAY_S).sin()


@feature("weekday_cos", group="time", inputs=["event_ts"])
def weekday_cosine() -> pl.Expr:
    """Time of week as a point on a circle: its cosine.

    Formula: cos(2π·seconds since Monday's midnight UTC / 604,800).
    Unit: none, −1 to 1.
    Null: never.
    Source: by definition.
    """
    return _turn(7 * DAY_S, _MONDAY_S).cos()
