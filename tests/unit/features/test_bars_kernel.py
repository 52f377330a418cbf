from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.contracts.gold import BAR_INTERVALS_S, BARS
from marketflow.contracts.silver import TRADES
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.bars import bars, floor, folded

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ONE_PM = NOON + HOUR
SECONDS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400}
Row = dict[str, object]
COLUMNS = ("venue", "product_id", "trade_id", "price", "size", "notional", "taker_side", "event_ts")


def trade(trade_id: int, seconds: float | Decimal, price: object = 100, size: object = 1, side: str = "buy") -> Row:
    with localcontext(prec=100):
        notional = (Decimal(str(price)) * Decimal(str(size))).quantize(Decimal("1e-18"), rounding=ROUND_HALF_EVEN)
    at = NOON + timedelta(microseconds=int(Decimal(str(seconds)) * 1_000_000))
    values = ("coinbase_exchange", "BTC-USD", trade_id, Decimal(str(price)), Decimal(str(size)), notional, side, at)
    return dict(zip(COLUMNS, values, strict=True))


def frame(rows: list[Row]) -> pl.DataFrame:
    types = frames.schema(TRADES)
    return pl.DataFrame(rows, schema={name: types[name] for name in COLUMNS})


def minutes(*rows: Row, start: datetime = NOON, end: datetime = ONE_PM, through: datetime | None = None) -> list[Row]:
    return bars(frame(list(rows)), interval="1m", start=start, end=end, complete_through=through).to_dicts()


def marks(result: list[Row]) -> dict[int, bool]:
    """Minute after noon → has_gap."""
    return {int((r["open_ts"] - NOON).total_seconds()) // 60: r["has_gap"] for r in result}


def slow_bars(rows: list[Row], interval: str, start: datetime, end: datetime, through: datetime) -> list[Row]:
    """Interval by interval over all trades, with fractions for the vwap."""
    step = timedelta(seconds=SECONDS[interval])
    rows = sorted(rows, key=lambda r: r["trade_id"])
    earliest, latest = min(r["event_ts"] for r in rows), max(r["event_ts"] for r in rows)
    result, opening = [], start
    with localcontext(prec=100):
        while opening < end:
            closing = opening + step
            own = [r for r in rows if opening <= r["event_ts"] < closing]
            if earliest < closing and latest >= opening:
                volume = sum((r["size"] for r in own), Decimal(0))
                notional = sum((r["notional"] for r in own), Decimal(0))
                prices = [r["price"] for r in own]
                result.append(
                    {
                        "venue": "coinbase_exchange",
                        "product_id": "BTC-USD",
                        "interval": interval,
                        "open_ts": opening,
                        "open": prices[0] if own else None,
                        "high": max(prices, default=None),
                        "low": min(prices, default=None),
                        "close": prices[-1] if own else None,
                        "volume": volume,
                        "notional": notional,
                        # Python rounds a Fraction half-even
                        "vwap": Decimal(round(Fraction(notional) / Fraction(volume) * 10**18)).scaleb(-18)
                        if own
                        else None,
                        "trade_count": len(own),
                        "buy_volume": sum((r["size"] for r in own if r["taker_side"] == "buy"), Decimal(0)),
                        "sell_volume": sum((r["size"] for r in own if r["taker_side"] == "sell"), Decimal(0)),
                        "has_gap": any(
                            b["trade_id"] > a["trade_id"] + 1
                            and min(a["event_ts"], b["event_ts"]) < closing
                            and max(a["event_ts"], b["event_ts"]) >= opening
                            for a, b in pairwise(rows)
                        ),
                        "is_complete": closing <= through and any(r["event_ts"] >= closing for r in rows),
                        "first_trade_id": own[0]["trade_id"] if own else None,
                        "last_trade_id": own[-1]["trade_id"] if own else None,
                    }
                )
            opening = closing
    return result


@st.composite
def tapes(draw: st.DrawFn) -> list[Row]:
    """Trades around noon … 2 pm: holes in ids, silences, times that run backwards, ties, boundaries."""
    rows, trade_id, at = [], draw(st.integers(1, 10**12)), draw(st.integers(-5400, 7200)) * 1_000_000
    for _ in range(draw(st.integers(1, 30))):
        trade_id += draw(st.sampled_from([1, 1, 1, 2, 9]))
        at += draw(st.sampled_from([0, 1, -1, 30_000_000, 60_000_000, 59_999_999, -90_000_000, 400_000_000]))
        rows.append(
            trade(
                trade_id,
                Decimal(at) / 1_000_000,
                draw(st.decimals("0.000000000000000001", "99999", places=18)),
                draw(st.decimals("0.000000000000000001", "5000", places=18)),
                draw(st.sampled_from(["buy", "sell"])),
            )
        )
    return draw(st.permutations(rows))


@given(tapes(), st.sampled_from(["1m", "5m", "15m", "1h"]), st.integers(0, 130))
@settings(max_examples=200, deadline=None)
def test_every_bar_equals_its_definition_exactly_whatever_the_order_of_input(
    rows: list[Row], interval: str, through_minute: int
) -> None:
    end, through = NOON + timedelta(hours=2), NOON + timedelta(minutes=through_minute)
    got = bars(frame(rows), interval=interval, start=NOON, end=end, complete_through=through)
    assert got.schema == frames.schema(BARS)
    assert got.to_dicts() == slow_bars(rows, interval, NOON, end, through)


@given(tapes(), st.sampled_from(["1m", "15m", "1h"]), st.integers(-24, 100), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_days_folded_from_shorter_bars_equal_the_days_of_the_trades_themselves_exactly(
    rows: list[Row], shorter: str, through_hour: int, other_hour: int
) -> None:
    # thirteen times as slow: days with and without trades, ids that run against the hours and against midnight
    rows = [row | {"event_ts": NOON + 13 * (row["event_ts"] - NOON)} for row in rows]
    other = [row | {"product_id": "ETH-USD", "event_ts": row["event_ts"] + timedelta(hours=other_hour)} for row in rows]
    start, end = floor(NOON, "1d") - timedelta(days=1), floor(NOON, "1d") + timedelta(days=6)
    through = NOON + timedelta(hours=through_hour)
    both = [
        {
            interval: bars(frame(own), interval=interval, start=start, end=end, complete_through=through)
            for interval in (shorter, "1d")
        }
        for own in (rows, other)
    ]
    days = folded(pl.concat([each[shorter] for each in reversed(both)]), "1d")
    assert days.equals(pl.concat([each["1d"] for each in both]))
    assert days.filter(product_id="BTC-USD").to_dicts() == slow_bars(rows, "1d", start, end, through)


def test_a_days_open_and_close_go_by_id_where_ids_run_against_the_border_of_hours() -> None:
    rows = [trade(1, 3600.1, 101), trade(2, 3599.9, 102), trade(9, 7200.1, 109), trade(10, 7199.9, 110)]
    hours = bars(frame(rows), interval="1h", start=NOON, end=NOON + 3 * HOUR, complete_through=None)
    [day] = folded(hours, "1d").to_dicts()
    assert (day["open"], day["close"], day["first_trade_id"], day["last_trade_id"]) == (101, 110, 1, 10)


def test_what_cannot_be_folded_is_refused_and_nothing_folds_to_nothing() -> None:
    hours = bars(frame([trade(1, 0)]), interval="1h", start=NOON, end=ONE_PM, complete_through=None)
    for parts, interval in ((hours, "15m"), (pl.concat([hours, folded(hours, "1d")]), "1d")):
        with pytest.raises(KernelError, match="do not fold into"):
            folded(parts, interval)
    with pytest.raises(KernelError, match="'6h'; known: 1m, 5m, 15m, 1h, 1d"):
        folded(hours, "6h")
    assert folded(hours.clear(), "1d").equals(frames.empty(BARS))


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_folded_sum_that_does_not_fit_38_digits_is_an_error_not_a_wrapped_number(count: int) -> None:
    rows = [trade(i, 3600 * i, 1, Decimal("99999999999999999999")) for i in range(count)]
    hours = bars(frame(rows), interval="1h", start=NOON, end=NOON + 9 * HOUR, complete_through=None)
    with pytest.raises(KernelError, match=r"volume of the bar at 2026-03-01 00:00:00\+00:00 does not fit"):
        folded(hours, "1d")


@given(tapes(), st.integers(0, 24))
@settings(max_examples=80, deadline=None)
def test_parts_split_anywhere_with_one_neighbour_either_side_equal_the_whole(
    rows: list[Row], five_minutes: int
) -> None:
    split, end = NOON + timedelta(minutes=5 * five_minutes), NOON + timedelta(hours=2)
    times = sorted(r["event_ts"] for r in rows)
    ordered = [row | {"event_ts": at} for row, at in zip(sorted(rows, key=lambda r: r["trade_id"]), times, strict=True)]

    def part(start: datetime, stop: datetime) -> pl.DataFrame:
        before = [r for r in ordered if r["event_ts"] < start][-1:]
        inside = [r for r in ordered if start <= r["event_ts"] < stop]
        after = [r for r in ordered if r["event_ts"] >= stop][:1]
        return bars(frame(before + inside + after), interval="5m", start=start, end=stop, complete_through=split)

    whole = bars(frame(ordered), interval="5m", start=NOON, end=end, complete_through=split)
    assert pl.concat([part(NOON, split), part(split, end)]).equals(whole)


def test_open_and_close_go_by_trade_id_not_by_time() -> None:
    [bar] = minutes(trade(11, 5, 101), trade(10, 6, 100), trade(12, 4, 102))
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (100, 102, 100, 102)


def test_a_trade_on_the_boundary_belongs_to_the_interval_it_opens() -> None:
    first, second = minutes(trade(1, 0, 100), trade(2, 59.999999, 101), trade(3, 60, 102))
    assert (first["trade_count"], first["close"], second["open"]) == (2, 101, 102)


def test_a_minute_without_a_trade_between_two_trades_is_a_row_of_zeros_and_nulls() -> None:
    _, empty, _ = minutes(trade(1, 0), trade(2, 120), through=NOON + timedelta(minutes=2))
    assert empty == {
        "venue": "coinbase_exchange",
        "product_id": "BTC-USD",
        "interval": "1m",
        "open_ts": NOON + timedelta(minutes=1),
        **dict.fromkeys(("open", "high", "low", "close", "vwap", "first_trade_id", "last_trade_id")),
        **dict.fromkeys(("volume", "notional", "buy_volume", "sell_volume"), Decimal(0)),
        "trade_count": 0,
        "has_gap": False,
        "is_complete": True,
    }


def test_there_is_no_row_before_the_first_or_after_the_last_trade() -> None:
    assert list(marks(minutes(trade(1, 600), trade(2, 720)))) == [10, 11, 12]


def test_a_silent_hour_between_two_known_trades_is_sixty_empty_rows() -> None:
    result = minutes(trade(1, -1), trade(2, 3600))
    assert [(r["trade_count"], r["has_gap"]) for r in result] == [(0, False)] * 60


def test_an_hour_after_the_last_or_before_the_first_known_trade_has_no_rows() -> None:
    assert minutes(trade(1, -7200), trade(2, -1)) == []
    assert minutes(trade(1, 3600), trade(2, 9000)) == []


def test_no_trades_give_no_rows_of_the_contracts_types() -> None:
    result = bars(frame([]), interval="1h", start=NOON, end=ONE_PM, complete_through=None)
    assert result.equals(frames.empty(BARS))


def test_a_hole_marks_every_bar_from_its_one_neighbour_to_the_other() -> None:
    result = minutes(trade(1, 0), trade(2, 60), trade(5, 240), trade(6, 300))
    assert marks(result) == {0: False, 1: True, 2: True, 3: True, 4: True, 5: False}


def test_a_hole_inside_one_bar_marks_that_bar_alone() -> None:
    assert marks(minutes(trade(1, 0), trade(2, 61), trade(4, 62), trade(5, 120))) == {0: False, 1: True, 2: False}


def test_a_hole_whose_later_neighbour_opens_the_next_bar_touches_both() -> None:
    assert marks(minutes(trade(1, 59.999999), trade(3, 60))) == {0: True, 1: True}


def test_a_hole_that_reaches_in_from_the_hour_before_marks_the_first_bars_and_out_to_the_next_the_last() -> None:
    into = marks(minutes(trade(1, -100), trade(3, 65), trade(4, 125)))
    out_of = marks(minutes(trade(1, 3400), trade(2, 3500), trade(9, 3700)))
    assert into == {0: True, 1: True, 2: False}
    assert out_of == {56: False, 57: False, 58: True, 59: True}


def test_a_hole_wholly_in_another_hour_marks_nothing() -> None:
    rows = [trade(1, -200), trade(3, -100), trade(4, 0), trade(5, 3599), trade(6, 3600), trade(9, 3700)]
    assert set(marks(minutes(*rows)).values()) == {False}


def test_a_hole_whose_neighbours_times_run_backwards_still_spans_both() -> None:
    assert marks(minutes(trade(1, 0), trade(2, 130), trade(4, 65), trade(5, 200))) == {
        0: False,
        1: True,
        2: True,
        3: False,
    }


def test_a_bar_is_complete_when_its_end_is_exactly_at_complete_through() -> None:
    rows = (trade(1, 0), trade(2, 60))
    assert [r["is_complete"] for r in minutes(*rows, through=NOON + timedelta(seconds=60))] == [True, False]
    assert [r["is_complete"] for r in minutes(*rows, through=NOON + timedelta(seconds=59.999999))] == [False, False]
    assert [r["is_complete"] for r in minutes(*rows)] == [False, False]  # nothing is known of silver yet


def test_the_last_bar_is_not_complete_before_a_later_trade_is_known() -> None:
    """A feed that is down, or a trade that is on its way over the minute's end: more of the bar may exist."""
    covered = NOON + timedelta(minutes=10)
    last = [trade(1, 0), trade(2, 70), trade(3, 80)]
    assert [r["is_complete"] for r in minutes(*last, through=covered)] == [True, False]
    [_, minute, _] = minutes(*last, trade(4, 120), through=covered)
    assert (minute["is_complete"], minute["has_gap"]) == (True, False)
    [_, minute, _] = minutes(*last, trade(7, 120), through=covered)
    assert (minute["is_complete"], minute["has_gap"]) == (True, True)


def test_a_vwap_that_falls_on_a_tie_is_rounded_half_to_even() -> None:
    tiny = Decimal("0.000000000000000001")
    rows = [trade(1, 0, 1, 1), trade(2, 1, 1 + tiny, 1)]  # mean 1 + 0.5e-18: to even is down
    [down] = minutes(*rows)
    rows = [trade(1, 0, 1 + tiny, 1), trade(2, 1, 1 + 2 * tiny, 1)]  # 1 + 1.5e-18: to even is up
    [up] = minutes(*rows)
    assert (down["vwap"], up["vwap"]) == (Decimal(1), 1 + 2 * tiny)


def test_a_vwap_a_hair_below_a_tie_is_rounded_down_however_many_digits_it_takes_to_see_it() -> None:
    volume = Decimal("6666666666666666666.666666666666666667")  # 10 / volume = 1.5e-18 − 2.5e-56
    [bar] = minutes(trade(1, 0, 1, volume) | {"notional": Decimal(10)})
    assert bar["vwap"] == Decimal("1e-18")


def test_a_vwap_of_38_digits_keeps_them_all() -> None:
    price = Decimal("12345678901234567890.123456789012345678")
    [bar] = minutes(trade(1, 0, price, 1), trade(2, 1, price, 2))
    assert bar["vwap"] == price


def test_sums_of_a_hundred_thousand_18_digit_trades_at_60000_dollars_are_exact() -> None:
    source = random.Random(5)
    rows = [
        trade(
            trade_id,
            source.randrange(3600 * 10**6) / 10**6,
            Decimal(source.randrange(59_000 * 10**18, 61_000 * 10**18)).scaleb(-18),
            Decimal(source.randrange(1, 10**21)).scaleb(-18),
            source.choice(["buy", "sell"]),
        )
        for trade_id in range(100_000)
    ]
    [bar] = bars(frame(rows), interval="1h", start=NOON, end=ONE_PM, complete_through=None).to_dicts()
    with localcontext(prec=80):
        assert bar["volume"] == sum(r["size"] for r in rows)
        assert bar["notional"] == sum(r["notional"] for r in rows)
        assert bar["buy_volume"] == sum(r["size"] for r in rows if r["taker_side"] == "buy")
        assert bar["buy_volume"] + bar["sell_volume"] == bar["volume"]


@pytest.mark.parametrize("trades", [2, 3, 4, 7])  # the 128-bit sum of 4 wraps back to a positive number
def test_a_sum_that_does_not_fit_38_digits_is_an_error_not_a_wrapped_number(trades: int) -> None:
    rows = [trade(trade_id, trade_id, 1, Decimal("99999999999999999999")) for trade_id in range(trades)]
    with pytest.raises(KernelError, match=r"volume of the bar at 2026-03-01 12:00:00\+00:00 does not fit"):
        minutes(*rows)


def test_a_sum_just_above_38_digits_that_128_bits_still_hold_is_an_error_too() -> None:
    with pytest.raises(KernelError, match="notional of the bar"):
        minutes(trade(1, 0, Decimal(6 * 10**19), 1), trade(2, 1, Decimal(4 * 10**19), 1))


def test_the_largest_sum_that_fits_38_digits_is_exact() -> None:
    [bar] = minutes(trade(1, 0, 1, Decimal("99999999999999999998.999999999999999999")), trade(2, 1, 1, 1))
    assert bar["volume"] == bar["notional"] == Decimal("99999999999999999999.999999999999999999")


def test_trades_of_two_products_a_doubled_id_and_an_unknown_side_are_refused_by_name() -> None:
    with pytest.raises(KernelError, match="one product"):
        minutes(trade(1, 0), trade(2, 1) | {"product_id": "ETH-USD"})
    with pytest.raises(KernelError, match="7 occurs twice"):
        minutes(trade(7, 0), trade(7, 1))
    with pytest.raises(KernelError, match="taker_side"):
        minutes(trade(7, 0, side="unknown"))


def test_a_start_or_end_off_the_interval_and_an_unknown_interval_are_refused() -> None:
    with pytest.raises(KernelError, match="start 2026-03-01 12:00:01"):
        minutes(trade(1, 0), start=NOON + timedelta(seconds=1))
    with pytest.raises(KernelError, match="end 2026-03-01 12:59:59"):
        minutes(trade(1, 0), end=ONE_PM - timedelta(seconds=1))
    with pytest.raises(KernelError, match="'2m'; known: 1m, 5m, 15m, 1h, 1d"):
        bars(frame([]), interval="2m", start=NOON, end=ONE_PM, complete_through=None)


@given(st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)), st.sampled_from(sorted(BAR_INTERVALS_S)))  # noqa: DTZ001
def test_floor_is_the_last_interval_start_not_after_the_moment(naive: datetime, interval: str) -> None:
    ts = naive.replace(tzinfo=UTC)
    opening = floor(ts, interval)
    assert timedelta(0) <= ts - opening < timedelta(seconds=BAR_INTERVALS_S[interval])
    assert (opening.microsecond, opening.second, floor(opening, interval)) == (0, 0, opening)
    assert opening.minute % {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "1d": 60}[interval] == 0
    assert interval != "1d" or opening.hour == 0


def test_bars_of_a_venue_that_does_not_number_its_trades_never_claim_that_none_is_missing() -> None:
    ids_in_order = [trade(7, 10), trade(8, 70), trade(9, 190)]
    assert marks(minutes(*ids_in_order)) == {0: False, 1: False, 2: False, 3: False}
    polled = [row | {"venue": "ccxt_kraken"} for row in ids_in_order]
    assert marks(minutes(*polled)) == {0: True, 1: True, 2: True, 3: True}
    assert [bar["trade_count"] for bar in minutes(*polled)] == [1, 1, 0, 1]
