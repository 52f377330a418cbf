"""Every trade feature once more: slow, from the catalogue's formulas, and in decimals of 80 digits until the last step.

Nothing here comes from the kernel that it judges, nor does that read anything of this. `Oracle(trades,
quotes).value(name, row)` is a feature of the row-th trade in order of trade_id, None where the catalogue's null rule
says null.
"""

# ruff: noqa: D103 - what a formula is called in words is in docs/features.md
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

from marketflow.verify.features_tape import DIGITS, Book, TooFewTradesError, ewm, mean, span, weights

Value = Decimal | float | int | bool | str | None
RELATIVE = 1e-9
"""How near to its own value a double must be told."""
OF_SCALE = 1e-12
"""And where it is a difference of larger terms, how near to those: see SCALES."""


class Oracle(Book):
    """A product's features, one value at a time."""

    def value(self, name: str, row: int) -> Value:
        """As a Python number of the column's kind; decimals are rounded to a double here and nowhere before."""
        with localcontext(DIGITS):
            try:
                value = FORMULAS[name](self, row)
            except TooFewTradesError:
                return None
        if isinstance(value, Decimal):  # 80 digits leave some 1e-75 where equal terms should cancel
            return float(value) if abs(value) > Decimal("1e-60") else 0.0
        return value

    def scale(self, name: str, row: int) -> float:
        """How large the terms are whose difference the value is: see SCALES. Zero where it is no difference."""
        formula = SCALES.get(name)
        with localcontext(DIGITS):
            return 0.0 if formula is None else float(formula(self, row) or 0)

    def agrees(self, name: str, row: int, told: object) -> bool:
        """Whether a value is the feature: the same, or a double within RELATIVE of it or OF_SCALE of its terms."""
        expected = self.value(name, row)
        if isinstance(told, float) and isinstance(expected, float):
            return math.isclose(told, expected, rel_tol=RELATIVE, abs_tol=OF_SCALE * self.scale(name, row))
        return told == expected and type(told) is type(expected)


Formula = Callable[[Oracle, int], Value]
Windowed = Callable[[Oracle, int, int], Value]


def variance(values: Sequence[Decimal]) -> Decimal:
    middle = mean(values)
    return sum(((value - middle) ** 2 for value in values), Decimal(0)) / (len(values) - 1)


def over(dividend: Decimal | int, divisor: Decimal | int) -> Decimal | None:
    return None if divisor == 0 else Decimal(dividend) / Decimal(divisor)


# price


def price_position(o: Oracle, t: int, w: int) -> Value:
    prices = o.prices(t, w)
    return over(prices[-1] - min(prices), max(prices) - min(prices))


def zscore(o: Oracle, t: int, w: int) -> Value:
    prices = o.prices(t, w)
    return over(prices[-1] - mean(prices), variance(prices).sqrt())


# returns


def price_change(o: Oracle, t: int, w: int) -> Decimal:
    prices = o.prices(t, w + 1)
    return prices[-1] - prices[0]


def simple_return(o: Oracle, t: int, w: int) -> Decimal:
    prices = o.prices(t, w + 1)
    return 100 * (prices[-1] / prices[0] - 1)


def realized_volatility(o: Oracle, t: int, w: int) -> Decimal:
    o.last(t, w + 1)
    return sum((o.log(i) ** 2 for i in range(t - w + 1, t + 1)), Decimal(0)).sqrt()


def rsi(o: Oracle, t: int) -> Value:
    o.last(t, 500)
    changes = [o.change(i) for i in range(t - 498, t + 1)]
    of = weights(Decimal(13) / Decimal(14), 499)
    gains = sum((q * max(change, Decimal(0)) for q, change in zip(of, changes, strict=True)), Decimal(0))
    losses = sum((q * max(-change, Decimal(0)) for q, change in zip(of, changes, strict=True)), Decimal(0))
    return over(100 * gains, gains + losses)


def macd_signal(o: Oracle, t: int) -> Decimal:
    o.last(t, 499)
    return ewm([o.macd(i) for i in range(t - 127, t + 1)], span(9))


# volume


def volume(o: Oracle, t: int, w: int) -> Decimal:
    return sum(o.sizes(t, w), Decimal(0))


def vwap(o: Oracle, t: int, w: int) -> Decimal:
    return sum((trade.price * trade.size for trade in o.last(t, w)), Decimal(0)) / volume(o, t, w)


# flow


def side_count(o: Oracle, t: int, w: int, side: str) -> int:
    return sum(trade.taker_side == side for trade in o.last(t, w))


def side_volume(o: Oracle, t: int, w: int, side: str) -> Decimal:
    return sum((trade.size for trade in o.last(t, w) if trade.taker_side == side), Decimal(0))


def signed_volume(o: Oracle, t: int, w: int) -> Decimal:
    return side_volume(o, t, w, "buy") - side_volume(o, t, w, "sell")


def aggressor_run_length(o: Oracle, t: int) -> int:
    length = 1
    while length < 500 and length <= t and o.trades[t - length].taker_side == o.trades[t].taker_side:
        length += 1
    return length


def impact(o: Oracle, t: int, w: int) -> tuple[list[Decimal], list[Decimal]]:
    """Price changes and signed sizes of the window's trades."""
    o.last(t, w + 1)
    signed = [trade.size if trade.taker_side == "buy" else -trade.size for trade in o.last(t, w)]
    return [o.change(i) for i in range(t - w + 1, t + 1)], signed


def kyle_lambda(o: Oracle, t: int, w: int) -> Value:
    changes, signed = impact(o, t, w)
    change, middle = mean(changes), mean(signed)
    both = sum(((c - change) * (x - middle) for c, x in zip(changes, signed, strict=True)), Decimal(0))
    return over(both, sum(((x - middle) ** 2 for x in signed), Decimal(0)))


def amihud(o: Oracle, t: int, w: int) -> Decimal:
    o.last(t, w + 1)
    rows = range(t - w + 1, t + 1)
    return mean([abs(o.log(i)) / (o.trades[i].price * o.trades[i].size) for i in rows])


# tempo and time


def trades_per_second(o: Oracle, t: int, w: int) -> Value:
    """Null too where the last trade's time lies before the first's: then no time passed either."""
    trades = o.last(t, w)
    passed = trades[-1].event_us - trades[0].event_us
    return None if passed <= 0 else Decimal((w - 1) * 1_000_000) / passed


def at(o: Oracle, t: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=o.trades[t].event_us)


def of_day(o: Oracle, t: int) -> float:
    """The angle of the time of day."""
    now = at(o, t)
    return 2 * math.pi * ((now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1))


def of_week(o: Oracle, t: int) -> float:
    return (of_day(o, t) + 2 * math.pi * at(o, t).weekday()) / 7


# quotes


def mid(o: Oracle, t: int) -> Decimal:
    return (o.quote(t).best_bid + o.quote(t).best_ask) / 2


def spread(o: Oracle, t: int) -> Decimal:
    return o.quote(t).best_ask - o.quote(t).best_bid


def weighed_by_book(o: Oracle, t: int, at_bid: Decimal | int, at_ask: Decimal | int) -> Value:
    """(at_bid·bid size + at_ask·ask size) / (bid size + ask size)."""
    quote = o.quote(t)
    if quote.best_bid_size is None or quote.best_ask_size is None:
        return None
    shared = at_bid * quote.best_bid_size + at_ask * quote.best_ask_size
    return over(shared, quote.best_bid_size + quote.best_ask_size)


def percent_above(o: Oracle, t: int, other: Decimal) -> Value:
    return None if other == 0 else 100 * (o.trades[t].price / other - 1)


def effective_spread(o: Oracle, t: int) -> Value:
    direction = 1 if o.trades[t].taker_side == "buy" else -1
    return over(20_000 * direction * (o.trades[t].price - mid(o, t)), mid(o, t))


# integrity and targets


def gaps_in_window(o: Oracle, t: int) -> int:
    o.last(t, 501)
    return sum(o.is_hole(i) for i in range(t - 499, t + 1))


def later(o: Oracle, t: int, h: int) -> Decimal:
    if t + h >= len(o.trades) or any(o.is_hole(i) for i in range(t + 1, t + h + 1)):
        raise TooFewTradesError
    return o.trades[t + h].price


def direction(o: Oracle, t: int, h: int) -> int | None:
    change = later(o, t, h) - o.trades[t].price
    return None if change == 0 else int(change > 0)


WINDOWED: dict[str, tuple[tuple[int, ...], Windowed]] = {
    "ma_{}_trades": ((10, 50, 100, 500), lambda o, t, w: mean(o.prices(t, w))),
    "min_{}_trades": ((10, 50, 100), lambda o, t, w: min(o.prices(t, w))),
    "max_{}_trades": ((10, 50, 100), lambda o, t, w: max(o.prices(t, w))),
    "price_range_{}": ((10, 50, 100), lambda o, t, w: max(o.prices(t, w)) - min(o.prices(t, w))),
    "price_position_{}": ((10, 50, 100, 500), price_position),
    "volatility_{}": ((10, 50, 100, 500), lambda o, t, w: variance(o.prices(t, w)).sqrt()),
    "zscore_{}": ((50, 100, 500), zscore),
    "ema_{}_trades": ((10, 50, 100), lambda o, t, w: ewm(o.prices(t, 500), span(w))),
    "price_change_{}": ((1, 5, 10, 50, 100), price_change),
    "return_{}": ((1, 5, 10, 50, 100), simple_return),
    "price_vs_ma_{}": ((10, 50, 100), lambda o, t, w: percent_above(o, t, mean(o.prices(t, w)))),
    "realized_volatility_{}": ((10, 50, 100, 500), realized_volatility),
    "volume_{}": ((10, 50, 100, 500), volume),
    "volume_ma_{}": ((10, 50, 100), lambda o, t, w: mean(o.sizes(t, w))),
    "volume_ratio_{}": ((10, 50), lambda o, t, w: o.trades[t].size / mean(o.sizes(t, w))),
    "vwap_{}": ((10, 50, 100, 500), vwap),
    "price_vs_vwap_{}": ((50, 100, 500), lambda o, t, w: percent_above(o, t, vwap(o, t, w))),
    "buy_count_{}": ((50, 100), lambda o, t, w: side_count(o, t, w, "buy")),
    "sell_count_{}": ((50, 100), lambda o, t, w: side_count(o, t, w, "sell")),
    "buy_sell_ratio_{}": ((50, 100), lambda o, t, w: over(side_count(o, t, w, "buy"), side_count(o, t, w, "sell"))),
    "buy_volume_{}": ((50, 100), lambda o, t, w: side_volume(o, t, w, "buy")),
    "sell_volume_{}": ((50, 100), lambda o, t, w: side_volume(o, t, w, "sell")),
    "buy_volume_ratio_{}": ((50, 100), lambda o, t, w: side_volume(o, t, w, "buy") / volume(o, t, w)),
    "order_flow_imbalance_{}": ((10, 50, 100, 500), lambda o, t, w: signed_volume(o, t, w) / volume(o, t, w)),
    "signed_volume_{}": ((10, 50, 100), signed_volume),
    "kyle_lambda_{}": ((100, 500), kyle_lambda),
    "amihud_{}": ((50, 100, 500), amihud),
    "trades_per_second_{}": ((10, 50, 100, 500), trades_per_second),
    "future_price_{}": ((10, 50), later),
    "target_return_{}": ((10, 50), lambda o, t, h: 100 * (later(o, t, h) / o.trades[t].price - 1)),
    "target_direction_{}": ((10, 50), direction),
}
SINGLE: dict[str, Formula] = {
    "log_return_1": lambda o, t: o.log(t),
    "rsi_14_trades": rsi,
    "macd_12_26": lambda o, t: o.macd(t),
    "macd_signal_9": macd_signal,
    "macd_histogram": lambda o, t: o.macd(t) - macd_signal(o, t),
    "is_buy": lambda o, t: o.trades[t].taker_side == "buy",
    "aggressor_run_length": aggressor_run_length,
    "seconds_since_previous": lambda o, t: Decimal(o.trades[t].event_us - o.last(t, 2)[0].event_us) / 1_000_000,
    "hour_of_day": lambda o, t: at(o, t).hour,
    "day_of_week": lambda o, t: at(o, t).weekday(),
    "is_weekend": lambda o, t: at(o, t).weekday() >= 5,
    "hour_sin": lambda o, t: math.sin(of_day(o, t)),
    "hour_cos": lambda o, t: math.cos(of_day(o, t)),
    "weekday_sin": lambda o, t: math.sin(of_week(o, t)),
    "weekday_cos": lambda o, t: math.cos(of_week(o, t)),
    "best_bid": lambda o, t: o.quote(t).best_bid,
    "best_ask": lambda o, t: o.quote(t).best_ask,
    "mid_price": mid,
    "microprice": lambda o, t: weighed_by_book(o, t, o.quote(t).best_ask, o.quote(t).best_bid),
    "bid_ask_spread": spread,
    "spread_pct": lambda o, t: over(100 * spread(o, t), mid(o, t)),
    "spread_bps": lambda o, t: over(10_000 * spread(o, t), mid(o, t)),
    "book_imbalance": lambda o, t: weighed_by_book(o, t, 1, -1),
    "price_vs_bid": lambda o, t: percent_above(o, t, o.quote(t).best_bid),
    "price_vs_ask": lambda o, t: percent_above(o, t, o.quote(t).best_ask),
    "effective_spread_bps": effective_spread,
    "quote_age_ms": lambda o, t: Decimal(o.trades[t].event_us - o.quote(t).event_us) / 1000,
    "quote_join": lambda o, t: o.quote_join(t),
    "gap_before": lambda o, t: o.is_hole(t),
    "gaps_in_window_500": gaps_in_window,
}


def _bound(formula: Windowed, window: int) -> Formula:
    return lambda o, t: formula(o, t, window)


def _named(templates: dict[str, tuple[tuple[int, ...], Windowed]]) -> dict[str, Formula]:
    return {
        template.format(window): _bound(formula, window)
        for template, (windows, formula) in templates.items()
        for window in windows
    }


FORMULAS: dict[str, Formula] = _named(WINDOWED) | SINGLE


def _width(o: Oracle, t: int, w: int) -> Decimal:
    """How far the window's prices lie from the newest at most."""
    prices = o.prices(t, w)
    return max(prices) - min(prices)


def _steepest(o: Oracle, t: int, w: int) -> Decimal:
    """The slope that λ would have if all changes, and not what they differ by alone, went with the sizes."""
    changes, signed = impact(o, t, w)
    deviation = variance(signed)
    return (mean([change**2 for change in changes]) / deviation).sqrt() if deviation else Decimal(0)


# A value that is a difference of larger terms cannot be told in doubles to 1e-9 of itself where the terms cancel. It
# is told to 1e-12 of its terms: the means behind macd differ from the price by the window's width at most (the signal
# reads 499 trades), a vwap likewise, λ's products are bounded by Cauchy and Schwarz, and a sine by its circle.
SCALES: dict[str, Formula] = {
    "macd_12_26": lambda o, t: _width(o, t, 372),
    "macd_signal_9": lambda o, t: _width(o, t, 499),
    "macd_histogram": lambda o, t: _width(o, t, 499),
    **_named(
        {
            "price_vs_vwap_{}": ((50, 100, 500), lambda o, t, w: 100 * _width(o, t, w) / vwap(o, t, w)),
            "kyle_lambda_{}": ((100, 500), _steepest),
        }
    ),
    **dict.fromkeys(("hour_sin", "hour_cos", "weekday_sin", "weekday_cos"), lambda o, t: Decimal(1)),
}
