"""What a worker hands on of a batch of trades and quotes, called without Spark."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from marketflow.lake import live_cut
from marketflow.lake.silver_sources import QUOTES, TRADES

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HEADERS = {"venue": "coinbase_exchange", "origin": "live", "received_at": "1773150000000000"}
MATCH = {"type": "match", "side": "sell", "size": "0.5", "price": "3", "product_id": "BTC-USD"}
TICKER = {"type": "ticker", "product_id": "BTC-USD", "price": "3", "best_bid": "2", "best_ask": "4"}
Message = tuple[dict[str, Any] | None, Any]


def match(trade_id: int, **changed: Any) -> dict[str, Any]:
    return MATCH | {"trade_id": trade_id, "sequence": 10 * trade_id, "time": NOON.isoformat()} | changed


def ticker(second: int) -> dict[str, Any]:
    return TICKER | {"sequence": second, "time": (NOON + timedelta(seconds=second)).isoformat()}


def cut(trades: Sequence[Message], quotes: Sequence[Message] = ()) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Trades and quotes that are handed on of messages of (headers, value), in batches of 100 of both topics."""
    rows = [("t", *one) for one in trades] + [("q", *one) for one in quotes]
    batches = []
    for first in range(0, len(rows), 100):
        part = rows[first : first + 100]
        batches.append(
            pa.record_batch(
                {
                    "topic": pa.array([topic for topic, _, _ in part]),
                    "partition": pa.array([0] * len(part), pa.int32()),
                    "offset": pa.array(range(first, first + len(part)), pa.int64()),
                    "headers": pa.array([None if headers is None else json.dumps(headers) for _, headers, _ in part]),
                    "value": pa.array([json.dumps(value).encode() for _, _, value in part], pa.binary()),
                }
            )
        )
    # as Spark brings the sources to its workers: equal, but not the same objects
    cutter = live_cut.cutter(pickle.loads(pickle.dumps({"t": TRADES, "q": QUOTES})))
    found = list(cutter(iter(batches)))
    return live_cut.tails(pa.Table.from_batches(found, schema=found[0].schema))


def test_of_many_trades_each_batch_hands_on_the_newest_and_none_that_may_matter_is_lost() -> None:
    ids = [(7 * number) % 1_009 + 1 for number in range(1_009)]
    trades, _ = cut([(HEADERS, match(trade_id)) for trade_id in ids])
    assert set(range(509, 1_010)) <= set(trades["trade_id"])


def test_the_first_of_an_id_comes_first_and_wins() -> None:
    trades, _ = cut([(HEADERS, match(1, price="3")), (HEADERS, match(1, price="4")), (HEADERS, match(2))])
    assert [int(price) for price in trades.sort("trade_id")["price"]] == [3, 3]


def test_what_silver_refuses_and_what_has_no_features_is_not_handed_on() -> None:
    trades, quotes = cut(
        [
            (HEADERS, match(1)),
            (HEADERS | {"origin": "elsewhere"}, match(2)),
            (HEADERS | {"venue": "ccxt_kraken", "product_id": "BTC-USD"}, [{"id": "3"}]),
            (HEADERS, match(4, size="0")),
            (HEADERS, match(5, size="200000000000000000")),
            (HEADERS, ticker(6)),
            (None, match(7)),
        ],
        [(HEADERS, match(8)), (HEADERS, ticker(9))],
    )
    assert trades["trade_id"].to_list() == [1]
    assert quotes["sequence"].to_list() == [9]


def test_quotes_far_behind_the_newest_are_not_handed_on() -> None:
    _, quotes = cut([], [(HEADERS, ticker(second)) for second in (0, 99, 100, 1_000)])
    assert quotes["sequence"].to_list() == [100, 1_000]
