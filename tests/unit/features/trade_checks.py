"""What must hold for any trade feature, as functions that name the features for which it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features import frames
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.feature import Feature
from marketflow.features.trades.kernel import trade_features
from marketflow.verify.features_oracle import OF_SCALE, RELATIVE, Oracle
from marketflow.verify.features_tape import Quote
from tests.unit.features.trade_tapes import Tape, trade_frame

ALL = tuple(CATALOGUE.values())
# beside whatever is no double: extremes and sums of sizes, which are exact until their one rounding
_EXACT = re.compile(r"(min|max)_\d+_trades|(buy_|sell_|signed_)?volume_\d+")
LOOKBACK, HORIZON = 500, 50


def is_exact(feature: Feature) -> bool:
    """Whether the feature must be the same to the last bit whatever rows surround its own."""
    return feature.type is not Type.DOUBLE or _EXACT.fullmatch(feature.name) is not None


def computed(tape: Tape, features: Iterable[Feature] = ALL) -> pl.DataFrame:
    return trade_features(tape.trade_frame, tape.quote_frame, features=features)


def is_close(one: object, other: object, *, relative: float, absolute: float = 0.0) -> bool:
    """Equal, or two floats so near; a null is near to nothing but a null."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=relative, abs_tol=absolute)
    return one == other and type(one) is type(other)


def unlike(
    one: pl.DataFrame, other: pl.DataFrame, features: Iterable[Feature], *, bit_for_bit: bool = False
) -> list[str]:
    """Features whose columns differ: exact ones (all, if bit for bit) in any bit, others by 1e-12 of their value."""
    assert one.height == other.height
    found = []
    for feature in features:
        left, right = one[feature.name], other[feature.name]
        if left.equals(right, check_dtypes=True):
            continue
        relative = 0.0 if bit_for_bit or is_exact(feature) else 1e-12
        if not all(is_close(a, b, relative=relative) for a, b in zip(left.to_list(), right.to_list(), strict=True)):
            found.append(feature.name)
    return found


def wrong_against_oracle(
    tape: Tape, rows: Iterable[int], features: Sequence[Feature] = ALL, *, relative: float = RELATIVE
) -> list[tuple[str, int, object, object]]:
    """(feature, row, its value, the oracle's) wherever the two are not the same to `relative` or OF_SCALE of SCALES."""
    got, oracle = computed(tape, features), Oracle(tape.trades, tape.quotes)
    for feature in features:
        assert got.schema[feature.name] == frames.POLARS_TYPES[feature.type], feature.name
    found: list[tuple[str, int, object, object]] = []
    for row in rows:
        values = got.row(row, named=True)
        for feature in features:
            value, expected = values[feature.name], oracle.value(feature.name, row)
            absolute = 0.0 if value is None or expected is None else OF_SCALE * oracle.scale(feature.name, row)
            if not is_close(value, expected, relative=relative, absolute=absolute):
                found.append((feature.name, row, value, expected))
    return found


def changed_by_cutting_the_future(tape: Tape, cut: int, features: Iterable[Feature] = ALL) -> list[str]:
    """Features that read no future, and of which a bit differs once trades and quotes from the cut on are gone."""
    asked = [feature for feature in features if not feature.reads_future]
    kept = tape.trades[:cut]
    past = Tape(kept, _quotes_known_by(tape, cut))
    whole, early = computed(tape, asked).head(cut), computed(past, asked)
    changed = unlike(whole, early, asked, bit_for_bit=True)
    return changed + [name for name in ("trade_id", "event_ts", "history") if not whole[name].equals(early[name])]


def _quotes_known_by(tape: Tape, cut: int) -> tuple[Quote, ...]:
    """The quotes that may be before one of the first `cut` trades: by sequence, or by time."""
    last = max((trade.sequence or 0 for trade in tape.trades[:cut]), default=0)
    latest = max((trade.event_us for trade in tape.trades[:cut]), default=0)
    return tuple(
        quote
        for quote in tape.quotes
        if quote.event_us < latest or (quote.sequence is not None and quote.sequence < last)
    )


def value_with(tape: Tape, row: int, before: int, features: Sequence[Feature]) -> dict[str, object]:
    """The row's features where the tape begins so many trades before it; 50 trades after it are kept."""
    assert 0 <= before <= row
    kept = tape.trades[row - before : row + HORIZON + 1]
    return trade_features(trade_frame(kept), tape.quote_frame, features=features).row(before, named=True)


def changed_by_cutting_the_past(tape: Tape, row: int, features: Iterable[Feature] = ALL) -> list[str]:
    """Features of the row that need more trades before it than their lookback says."""
    asked = list(features)
    whole = computed(tape, asked).row(row, named=True)
    found = []
    for lookback in sorted({feature.lookback for feature in asked}):
        group = [feature for feature in asked if feature.lookback == lookback]
        if lookback > row:
            continue
        short = value_with(tape, row, lookback, group)
        for feature in group:
            relative = 0.0 if is_exact(feature) else 1e-12
            if not is_close(whole[feature.name], short[feature.name], relative=relative):
                found.append(feature.name)
    return found


def the_same_with_less_lookback(tape: Tape, row: int, features: Iterable[Feature] = ALL) -> list[str]:
    """Features of the row, not null, that have the same value with one trade fewer than their lookback says."""
    asked = [feature for feature in features if feature.lookback]
    whole = computed(tape, asked).row(row, named=True)
    found = []
    for lookback in sorted({feature.lookback for feature in asked}):
        group = [feature for feature in asked if feature.lookback == lookback]
        short = value_with(tape, row, lookback - 1, group)
        found += [one.name for one in group if whole[one.name] is not None and short[one.name] == whole[one.name]]
    return found


def unlike_in_chunks(
    tape: Tape, cuts: Iterable[int], features: Iterable[Feature] = ALL, *, quotes_back_s: int = 60
) -> list[str]:
    """Features that differ where the tape is computed in pieces, each with 500 trades before it and 50 after it."""
    asked = list(features)
    edges = [0, *sorted(cuts), len(tape.trades)]
    pieces = []
    for start, end in pairwise(edges):
        if start == end:
            continue
        first, last = max(start - LOOKBACK, 0), min(end + HORIZON, len(tape.trades))
        earliest = min(trade.event_us for trade in tape.trades[start:end]) - quotes_back_s * 1_000_000
        quotes = tuple(quote for quote in tape.quotes if quote.event_us >= earliest)
        piece = computed(Tape(tape.trades[first:last], quotes), asked)
        pieces.append(piece.slice(start - first, end - start))
    whole, parts = computed(tape, asked), pl.concat(pieces)
    same = ("trade_id", "event_ts", "history", "is_final")
    return unlike(whole, parts, asked) + [name for name in same if not whole[name].equals(parts[name])]
