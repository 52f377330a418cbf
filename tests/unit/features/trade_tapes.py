"""Made-up trades and quotes for the trade features' tests: seeded, so that a tape is a name and two numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import polars as pl
from hypothesis import strategies as st

from marketflow.verify.features_tape import Quote, Trade

MONEY = pl.Decimal(38, 18)
TIME = pl.Datetime("us", "UTC")
# a Friday evening: a tape of some hours sees a weekday, a midnight and a weekend
EVENING = datetime(2026, 2, 27, 23, 59, 30, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VENUE, PRODUCT = "coinbase_exchange", "BTC-USD"
TRADE_SCHEMA = {
    "venue": pl.String(),
    "product_id": pl.String(),
    "trade_id": pl.Int64(),
    "price": MONEY,
    "size": MONEY,
    "taker_side": pl.String(),
    "event_ts": TIME,
    "sequence": pl.Int64(),
    "origin": pl.String(),  # a column of silver that no feature reads
}
QUOTE_SCHEMA = {
    "venue": pl.String(),
    "product_id": pl.String(),
    "sequence": pl.Int64(),
    "event_ts": TIME,
    "best_bid": MONEY,
    "best_bid_size": MONEY,
    "best_ask": MONEY,
    "best_ask_size": MONEY,
    "last_trade_id": pl.Int64(),
}


@dataclass(frozen=True)
class Tape:
    """Trades in order of their ids, and quotes in the order in which they were made."""

    trades: tuple[Trade, ...]
    quotes: tuple[Quote, ...] = ()

    @property
    def trade_frame(self) -> pl.DataFrame:
        return trade_frame(self.trades)

    @property
    def quote_frame(self) -> pl.DataFrame:
        return quote_frame(self.quotes)


def moment(event_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=event_us)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


START_US = microseconds(EVENING)


def trade_frame(trades: Sequence[Trade]) -> pl.DataFrame:
    columns = {
        "venue": [VENUE] * len(trades),
        "product_id": [PRODUCT] * len(trades),
        **{name: [getattr(one, name) for one in trades] for name in ("trade_id", "price", "size", "taker_side")},
        "event_ts": [one.event_us for one in trades],
        "sequence": [one.sequence for one in trades],
        "origin": ["simulated"] * len(trades),
    }
    return pl.DataFrame(columns, schema_overrides=TRADE_SCHEMA | {"event_ts": pl.Int64()}).cast({"event_ts": TIME})


def quote_frame(quotes: Sequence[Quote]) -> pl.DataFrame:
    names = ("best_bid", "best_bid_size", "best_ask", "best_ask_size")
    columns = {
        "venue": [VENUE] * len(quotes),
        "product_id": [PRODUCT] * len(quotes),
        "sequence": [one.sequence for one in quotes],
        "event_ts": [one.event_us for one in quotes],
        **{name: [getattr(one, name) for one in quotes] for name in names},
        "last_trade_id": [None] * len(quotes),
    }
    return pl.DataFrame(columns, schema_overrides=QUOTE_SCHEMA | {"event_ts": pl.Int64()}).cast({"event_ts": TIME})


@dataclass(frozen=True)
class Market:
    """How a made-up product behaves. Prices walk in whole ticks of 10^-places; times are in microseconds."""

    first_price: str = "60000.01"
    places: int = 2
    jumps: tuple[int, ...] = (-3, -1, 0, 0, 0, 1, 3)
    rare_jump: int = 40_000  # in ticks, one trade in 100
    size_exponents: tuple[float, float] = (-5, 1)
    side_stays: float = 0.7  # chance that the next taker is on the same side
    steps_us: tuple[int, ...] = (0, 0, 1_000, 12_345, 250_000, 900_000)
    silence: float = 0.01  # chance of 7 s without a trade, in which every quote grows too old
    hole: float = 0.004
    sequenced_trades: float = 1.0  # share of trades that have a sequence
    sequenced_quotes: bool = True
    quotes_each: float = 0.9  # quotes between two trades, on average
    late: float = 0.0  # share of quotes whose time is later than that of the trades after them
    crossed: float = 0.02
    without_sizes: float = 0.1
    one_side: str = ""
    sizes: tuple[str, ...] = ()  # if given, sizes are drawn from these alone


BITCOIN = Market()
MARKETS: dict[str, Market] = {
    "bitcoin": BITCOIN,
    # 8 places, and nothing but trades of equal times
    "penny": Market(first_price="0.00001234", places=8, rare_jump=90, steps_us=(0, 0, 0, 5), silence=0.002),
    # 10 places in every price and quote: the tape's units are finer
    "tenth_place": Market(first_price="0.0000123456", places=10, rare_jump=900, size_exponents=(-8, 6)),
    # from 10^-8 to 10^6 side by side
    "extreme_sizes": replace(BITCOIN, sizes=("0.00000001", "0.00000003", "1000000", "999999.99999999", "1.5")),
    "flat": replace(BITCOIN, jumps=(0,), rare_jump=0, sizes=("0.25",)),
    "buyers_only": replace(BITCOIN, one_side="buy"),
    "sellers_only": replace(BITCOIN, one_side="sell", jumps=(-1, 0), rare_jump=0),
    # changes that do not differ: λ is zero, and RSI 100
    "steady_climb": replace(BITCOIN, jumps=(1,), rare_jump=0),
    # takers that keep their side for hundreds of trades: runs beyond 500
    "long_runs": replace(BITCOIN, side_stays=0.998, hole=0),
    "times_run_backwards": replace(BITCOIN, steps_us=(-2_000_000, -5, 0, 3, 1_500_000, 900_000), late=0.2),
    "full_of_holes": replace(BITCOIN, hole=0.2),
    "quotes_without_sequence": replace(BITCOIN, sequenced_quotes=False),
    "trades_partly_without_sequence": replace(BITCOIN, sequenced_trades=0.5),
    "late_and_crossed_quotes": replace(BITCOIN, late=0.3, crossed=0.5, without_sizes=0.4),
    "no_quotes": replace(BITCOIN, quotes_each=0.0),
    "rare_quotes": replace(BITCOIN, quotes_each=0.05, silence=0.05),
}


@dataclass
class _Maker:
    market: Market
    source: random.Random
    trades: list[Trade] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)

    def tape(self, length: int) -> Tape:
        market, source = self.market, self.source
        ticks = int(Decimal(market.first_price).scaleb(market.places))
        trade_id, sequence, at, side = source.randrange(1, 10**9), source.randrange(1, 10**10), START_US, "buy"
        for _ in range(length):
            trade_id += source.randrange(2, 9) if source.random() < market.hole else 1
            ticks = max(ticks + source.choice(market.jumps), 2)
            if source.random() < 0.01:
                ticks = max(ticks + source.randint(-market.rare_jump, market.rare_jump), 2)
            at += 7_000_000 if source.random() < market.silence else source.choice(market.steps_us)
            for _ in range(int(market.quotes_each + source.random())):
                sequence += 1
                self.quotes.append(self._quote(ticks, at - source.choice((0, 1, 1_000, 80_000)), sequence))
            side = market.one_side or (side if source.random() < market.side_stays else source.choice(["buy", "sell"]))
            sequence += 1
            is_sequenced = source.random() < market.sequenced_trades
            price = Decimal(ticks).scaleb(-market.places)
            self.trades.append(Trade(trade_id, price, self._size(), side, at, sequence if is_sequenced else None))
            if source.random() < min(market.quotes_each, 0.5):  # the book after the trade, under the trade's sequence
                self.quotes.append(self._quote(ticks, at, sequence))
        return Tape(tuple(self.trades), tuple(dict.fromkeys(self._with_own_keys())))

    def _with_own_keys(self) -> list[Quote]:
        """Without sequences a quote's time is its key: of two of one time the first stays."""
        if self.market.sequenced_quotes:
            return self.quotes
        return list({quote.event_us: quote for quote in reversed(self.quotes)}.values())[::-1]

    def _size(self) -> Decimal:
        if self.market.sizes:
            return Decimal(self.source.choice(self.market.sizes))
        return max(Decimal(round(10 ** self.source.uniform(*self.market.size_exponents) * 10**8)), Decimal(1)).scaleb(
            -8
        )

    def _quote(self, ticks: int, at: int, sequence: int) -> Quote:
        market, source = self.market, self.source
        bid, spread = max(ticks - source.randint(0, 3), 1), source.randint(0, 5)
        if source.random() < market.crossed:
            spread = -min(spread, bid - 1)
        at += source.choice((1, 900_000, 4_000_000)) if source.random() < market.late else 0
        sizes = (None, None) if source.random() < market.without_sizes else (self._size(), self._size())
        if source.random() < 0.02:
            sizes = (Decimal(0), Decimal(0))
        return Quote(
            at,
            Decimal(bid).scaleb(-market.places),
            Decimal(bid + spread).scaleb(-market.places),
            *sizes,
            sequence if market.sequenced_quotes else None,
        )


@lru_cache(maxsize=64)
def made(name: str, seed: int, length: int) -> Tape:
    """The tape of one of MARKETS; the same arguments give the same tape."""
    return _Maker(MARKETS[name], random.Random(f"{name} {seed}")).tape(length)


def tapes(shortest: int = 1, longest: int = 700) -> st.SearchStrategy[Tape]:
    """Any market's tape."""
    return st.builds(made, st.sampled_from(sorted(MARKETS)), st.integers(0, 999), st.integers(shortest, longest))


@st.composite
def short_tapes(draw: st.DrawFn) -> Tape:
    """Up to 30 trades and as many quotes, drawn one by one, so that a failure shrinks to few rows."""
    trades: list[Trade] = []
    quotes: list[Quote] = []
    sequenced = draw(st.booleans())
    trade_id, sequence, at = draw(st.integers(1, 10**12)), 1, START_US
    prices = st.decimals("0.5", "90000", places=8)
    sizes = st.decimals("0.00000001", "1000000", places=8)
    for _ in range(draw(st.integers(1, 30))):
        trade_id += draw(st.sampled_from([1, 1, 1, 2, 9]))
        at += draw(st.sampled_from([0, 1, -1, 999, 5_000_000, 5_000_001, -3_000_000]))
        sequence += draw(st.integers(0, 2))
        side = draw(st.sampled_from(["buy", "sell"]))
        own = draw(st.sampled_from([sequence, None])) if sequenced else None
        trades.append(Trade(trade_id, draw(prices), draw(sizes), side, at, own))
        if draw(st.booleans()):
            sequence += draw(st.integers(0, 1))
            both = draw(st.sampled_from([None, (Decimal(0), Decimal(0)), (Decimal(2), Decimal("0.5"))]))
            when = at + draw(st.sampled_from([0, 1, -1, 5_000_000, -5_000_000, -5_000_001]))
            quotes.append(
                Quote(when, draw(prices), draw(prices), *(both or (None, None)), sequence if sequenced else None)
            )
    # the key of silver.quotes: sequence and time, or the time alone
    by_key = {(quote.sequence, quote.event_us): quote for quote in quotes}
    return Tape(tuple(trades), tuple(by_key.values()))
