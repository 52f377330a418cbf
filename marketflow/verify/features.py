"""gold.trade_features: every row by SQL as far as SQL goes, some rows of each product's hour whole by the oracle.

The tables of silver are read as of the two snapshots that the mark names, or as of what a later backfill of an hour has
seen. ops.gold_accounting is held against the same counts.
"""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from marketflow.verify.batches import HOUR_US, Findings, batches
from marketflow.verify.case import Case
from marketflow.verify.compare import Subject, compare
from marketflow.verify.features_oracle import FORMULAS, Oracle
from marketflow.verify.features_tape import Quote, Trade
from marketflow.verify.gold import SILVER_OF, Mark, empty, first_hour, is_older, mark_of, replaced_by, seen_at
from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable, statement

NAME = "gold.trade_features"
HISTORY = 500
KEY = ("venue", "product_id", "trade_id")
IDENTITY = ("event_ts", "price", "size", "taker_side", "is_final")
QUOTES_BACK_US, QUOTES_AHEAD_US = 65_000_000, 60_000_000
"""Quotes around a trade that are looked at: 5 s of age, and the minute by which times may run against sequences."""
SAMPLED = 300
"""Rows at most that the oracle recomputes: a tenth of a second each."""
ON_ITS_WAY_US = 60_000_000
"""Between a commit and its account: an hour written this shortly before the database was looked at is not asked for."""

_EXACT = (
    *("buy_count_50", "buy_count_100", "sell_count_50", "sell_count_100", "aggressor_run_length", "is_buy"),
    *("hour_of_day", "day_of_week", "is_weekend", "quote_join", "gap_before", "gaps_in_window_500"),
    *("target_direction_10", "target_direction_50"),
)
# SQL works in decimals until its last step, so that 1e-9 of the value is generous; where it does not, the slack is what
# doubles lose: a logarithm of a ratio near 1 some 2e-16, a root of w such squares √w of that, 1 less a ratio of sums of
# 500 products some 1e-14, of 100 percent, and an angle's sine what its 17th digit is worth
_SLACK = {
    **{"log_return_1": "1e-15", "hour_sin": "1e-14", "hour_cos": "1e-14", "weekday_sin": "1e-14"},
    "weekday_cos": "1e-14",
    **{f"realized_volatility_{window}": "1e-14" for window in (10, 50, 100, 500)},
    **{f"price_vs_vwap_{window}": "1e-11" for window in (50, 100, 500)},
}
# what takes a sum of squares of differences, or weights that decay: the oracle's alone
_ORACLES_ALONE = (
    *(f"volatility_{window}" for window in (10, 50, 100, 500)),
    *(f"zscore_{window}" for window in (50, 100, 500)),
    *(f"ema_{window}_trades" for window in (10, 50, 100)),
    *(f"amihud_{window}" for window in (50, 100, 500)),
    *("kyle_lambda_100", "kyle_lambda_500", "rsi_14_trades", "macd_12_26", "macd_signal_9", "macd_histogram"),
)
BY_SQL = Subject(
    "gold",
    NAME,
    KEY,
    (*IDENTITY, *_EXACT),
    "product_id",
    {name: _SLACK.get(name, "0") for name in FORMULAS if name not in (*_EXACT, *_ORACLES_ALONE)},
)
COLUMNS = (*KEY, *IDENTITY, *FORMULAS)
ACCOUNTS = Subject(
    "gold", "ops.gold_accounting", ("venue", "product_id", "hour"), ("trades", "row_count", "left_out"), "product_id"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Snapshots of silver.trades and silver.quotes; None where the table held nothing."""

    trades: int
    quotes: int | None


def stored(table: LakeTable, start: int, end: int, snapshot_id: int | None = None) -> str:
    """All columns of the rows with event_ts in [start, end), times in µs."""
    listed = ", ".join("epoch_us(event_ts) as event_ts" if name == "event_ts" else f'"{name}"' for name in COLUMNS)
    scope = f"event_ts >= make_timestamptz({start}) and event_ts < make_timestamptz({end})"
    return f"select {listed} from {table.scan(snapshot_id)} where {scope if table.snapshots else 'false'}"


def rows_by_hour(case: Case, table: LakeTable, first: int, snapshot_id: int | None = None) -> dict[int, int]:
    """Rows of gold in each hour from the first on."""
    if not table.snapshots:
        return {}
    hour = f"epoch_us(event_ts) // {HOUR_US} * {HOUR_US}"
    scope = f"event_ts >= make_timestamptz({first})"
    return dict(case.space.rows(f"select {hour}, count(*) from {table.scan(snapshot_id)} where {scope} group by all"))


def check(case: Case) -> None:
    """The table and its account against their recomputation."""
    gold, trades = case.tables[NAME], case.tables["silver.trades"]
    mark = mark_of(gold)
    if mark is None:
        if rows_by_hour(case, gold, 0):
            case.report.problem("gold", NAME, "all", "no mark", "no snapshot says what it covers of silver", count=1)
        else:
            case.nothing_compared("gold", NAME, SILVER_OF[NAME], reason=empty(case, trades))
        return
    if is_older(case, gold, mark):
        return
    covered = Seen(mark.silver_snapshot, mark.beside_snapshot)
    gone = _gone(case, covered)
    if gone:
        case.report.problem("gold", NAME, "all", "covered snapshot gone", gone, count=1)
        return
    case.space.run(
        "create or replace temp table expected_accounts "
        "(venue varchar, product_id varchar, hour bigint, trades bigint, row_count bigint, left_out bigint)"
    )
    _number(case, covered)
    _choose(case)
    found, expected, whole = Findings("gold", NAME), 0, 0
    loaded = covered
    for seen, spans in _spans(case, mark, covered):
        if seen.trades != loaded.trades:
            _number(case, seen)
        loaded = seen
        for start, end in spans:
            _account(case, start, end)
            rows, sampled = _judge(case, found, seen, start, end)
            expected, whole = expected + rows, whole + sampled
    found.report(case.report)
    case.report.notes.append(
        f"gold {NAME}: every row in {len(BY_SQL.exact) + len(BY_SQL.approximate)} columns, "
        f"{whole} of {expected} rows in all {len(FORMULAS)} features and targets"
    )
    case.nothing_compared("gold", NAME, SILVER_OF[NAME], reason=_reason(case, trades, expected))
    _judge_accounts(case, gold)


def _gone(case: Case, seen: Seen) -> str | None:
    for name, snapshot_id in (("silver.trades", seen.trades), ("silver.quotes", seen.quotes)):
        if snapshot_id is not None and not case.tables[name].has(snapshot_id):
            return f"{name} no longer has snapshot {snapshot_id}, which {NAME} says it covers"
    return None


def _reason(case: Case, trades: LakeTable, expected: int) -> str | None:
    if expected:
        return None
    if case.since_us is not None:
        return "silver has nothing in scope that has 500 trades before it"
    if case.space.rows("select 1 from feature_trades limit 1"):
        return "no product has a trade with 500 trades before it yet"
    return empty(case, trades)


def _number(case: Case, seen: Seen) -> None:
    """`feature_trades`: all trades of that snapshot, numbered by trade_id within their product."""
    case.space.table(
        "feature_trades",
        f"""
        select venue, product_id, trade_id, price, size, taker_side, epoch_us(event_ts) as event_ts, sequence,
          row_number() over (partition by venue, product_id order by trade_id) - 1 as place,
          count(*) over (partition by venue, product_id) as total
        from {case.tables["silver.trades"].scan(seen.trades)}
        where not starts_with(venue, 'ccxt_')
        """,
    )


def _choose(case: Case) -> None:
    """`feature_samples`: of each product's hour the first row, the last, one by its id's hash; SAMPLED at most."""
    case.space.table(
        "feature_samples",
        f"""
        select distinct venue, product_id, unnest([lowest, highest, chosen]) as trade_id
        from (
          select venue, product_id, min(trade_id) as lowest, max(trade_id) as highest,
            arg_min(trade_id, hash(trade_id)) as chosen
          from feature_trades where place >= {HISTORY} and event_ts >= {first_hour(case)}
          group by venue, product_id, event_ts // {HOUR_US})
        order by hash(venue, product_id, trade_id) limit {SAMPLED}
        """,
    )


def _spans(case: Case, mark: Mark, covered: Seen) -> list[tuple[Seen, list[tuple[int, int]]]]:
    """What to judge by which snapshots: runs of hours that were written from the same ones, those of the mark first."""
    first = first_hour(case)
    rows = rows_by_hour(case, case.tables[NAME], first)
    hour = f"event_ts // {HOUR_US} * {HOUR_US}"
    for one, count in case.space.rows(
        f"select {hour}, count(*) from feature_trades where event_ts >= {first} group by all"
    ):
        rows[one] = max(count, rows.get(one, 0))
    rows |= {one: 0 for one in mark.replaced_since if one >= first and one not in rows}
    seen = {one: _seen(case, mark, covered, one) for one in rows}
    found = []
    for by, hours in groupby(sorted(rows), key=lambda one: seen[one]):
        found.append((by, batches({one: rows[one] for one in hours})))
    return sorted(found, key=lambda each: (each[0] != covered, each[0].trades))


def _seen(case: Case, mark: Mark, covered: Seen, hour: int) -> Seen:
    """What a backfill since the mark has seen of silver, or what the mark covers."""
    committed_us = mark.replaced_since.get(hour)
    trades = seen_at(case.tables["silver.trades"], committed_us) if committed_us is not None else None
    if committed_us is None or trades is None:
        return covered
    return Seen(trades, seen_at(case.tables["silver.quotes"], committed_us))


def _judge(case: Case, found: Findings, seen: Seen, start: int, end: int) -> tuple[int, int]:
    """One run of hours; how many rows it must hold, and how many of them the oracle looked at."""
    space, part = case.space, Report(case.report.dataset)
    space.table(
        "feature_tape",
        f"""
        with edges as (
          select venue, product_id, min(place) - {HISTORY} as lowest, max(place) + 50 as highest
          from feature_trades where event_ts >= {start} and event_ts < {end} group by all)
        select trade.* from feature_trades as trade inner join edges using (venue, product_id)
        where place between lowest and highest
        """,
    )
    book, within = case.tables["silver.quotes"], "false"
    if seen.quotes is not None:
        since, until = start - QUOTES_BACK_US, end + QUOTES_AHEAD_US
        within = f"event_ts >= make_timestamptz({since}) and event_ts < make_timestamptz({until})"
    space.table(
        "feature_book",
        "select venue, product_id, sequence, epoch_us(event_ts) as quote_ts, best_bid, best_bid_size, best_ask, "
        f"best_ask_size from {book.scan(seen.quotes)} where {within}",
    )
    for table, name in (("feature_quotes", "trade_quotes"), ("expected_features", "trade_features")):
        space.table(table, statement(name).replace("$start", str(start)).replace("$end", str(end)))
    space.table("stored_features", stored(case.tables[NAME], start, end))
    faults = compare(space, part, BY_SQL, "expected_features", "stored_features")
    found.add(part)
    return space.rows("select count(*) from expected_features")[0][0], _sample(case, found, faults)


def _sample(case: Case, found: Findings, faults: str) -> int:
    """Every feature and target of the chosen rows, but those that are named already, by the oracle."""
    rows = case.space.run(
        f"select stored.*, trade.place, trade.sequence from stored_features as stored "
        f"semi join feature_samples using (venue, product_id, trade_id) "
        f"anti join {faults} using (venue, product_id, trade_id) "
        "inner join feature_tape as trade using (venue, product_id, trade_id) order by all"
    )
    names = [column[0] for column in rows.description]
    told = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    for row in told:
        oracle, place = _oracle(case, row)
        wrong = [name for name in FORMULAS if not oracle.agrees(name, place, row[name])]
        if wrong:
            said = "; ".join(f"{name}: expected {oracle.value(name, place)}, found {row[name]}" for name in wrong)
            found.differing(row["product_id"], f"{row['venue']} {row['product_id']} {row['trade_id']} ({said})")
    return len(told)


def _oracle(case: Case, row: dict[str, Any]) -> tuple[Oracle, int]:
    """Over the row's neighbours, and its own place among them."""
    market = "venue = $venue and product_id = $product_id"
    which = {name: row[name] for name in ("venue", "product_id")}
    trades = case.space.rows(
        f"select trade_id, price, size, taker_side, event_ts, sequence from feature_tape where {market} "
        f"and place between $place - {HISTORY} and $place + 50 order by trade_id",
        which | {"place": row["place"]},
    )
    quotes = case.space.rows(
        f"select quote_ts, best_bid, best_ask, best_bid_size, best_ask_size, sequence from feature_book where {market} "
        f"and quote_ts between $at - {QUOTES_BACK_US} and $at + {QUOTES_AHEAD_US} "
        "and (quote_ts < $at or sequence < $sequence)",
        which | {"at": row["event_ts"], "sequence": row["sequence"]},
    )
    return Oracle((Trade(*one) for one in trades), (Quote(*one) for one in quotes)), HISTORY


def _account(case: Case, start: int, end: int) -> None:
    """What became of these hours' trades, to `expected_accounts`."""
    kept = f"count(*) filter (place >= {HISTORY})"
    case.space.run(
        f"insert into expected_accounts select venue, product_id, event_ts // {HOUR_US} * {HOUR_US}, count(*), {kept}, "
        f"count(*) - {kept} from feature_trades where event_ts >= {start} and event_ts < {end} group by all"
    )


def _judge_accounts(case: Case, gold: LakeTable) -> None:
    """ops.gold_accounting in scope, but hours whose newest commit may not have been accounted for when it was read."""
    hour = "(extract(epoch from hour) * 1000000)::bigint"
    names = (*ACCOUNTS.key, *ACCOUNTS.exact)
    listed = ", ".join(hour if name == "hour" else name for name in names)
    kinds = {name: "VARCHAR" if name in ("venue", "product_id") else "BIGINT" for name in names}
    case.warehouse.copy("accounts", f"select {listed} from ops.gold_accounting where table_name = '{NAME}'", kinds)
    scope = f"hour >= {first_hour(case)} and hour not in (select unnest({_unaccounted(case, gold)}::bigint[]))"
    expected, actual = (f"(select * from {name} where {scope})" for name in ("expected_accounts", "accounts"))
    compare(case.space, case.report, ACCOUNTS, expected, actual)


def _unaccounted(case: Case, gold: LakeTable) -> list[int]:
    if case.at_rest:
        return []
    looked_us = case.warehouse.rows("select (extract(epoch from now()) * 1000000)::bigint")[0][0]
    late = [one for one in gold.snapshots if one.committed_us > looked_us - ON_ITS_WAY_US]
    return sorted({hour for one in late for hour in replaced_by(one)})
