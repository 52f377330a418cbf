"""live.feature_latest is the last row of the whole tape, however trades and quotes came and were cut into batches."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
from pyspark.sql import SparkSession

from marketflow import venues
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.live import FEATURE_LATEST, QUOTE_TAIL, TRADE_TAIL
from marketflow.contracts.records import Parsed, Quote, Trade
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.features import frames
from marketflow.features.trades.kernel import trade_features
from marketflow.ingest.replay import Options, Prepared, prepared
from marketflow.lake import live_features
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect
from marketflow.warehouse.live_features import Written
from tests.stream_stage import producer
from tests.unit.features import trade_tapes
from tests.unit.features.trade_checks import ALL, unlike
from tests.unit.features.trade_tapes import PRODUCT, VENUE, Tape, made, quote_frame, trade_frame

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
RECEIVED = datetime.fromisoformat("2026-11-01T12:00:00+00:00")
# those whose ids, times and quotes are out of step, and two of odd numbers
ODD_MARKETS = (
    *("bitcoin", "times_run_backwards", "full_of_holes", "quotes_without_sequence", "trades_partly_without_sequence"),
    *("late_and_crossed_quotes", "rare_quotes", "tenth_place", "extreme_sizes"),
)
Item = trade_tapes.Trade | trade_tapes.Quote


@pytest.fixture(scope="module")
def database(embedded: Settings) -> Settings:
    settings = embedded.model_copy(update={"dataset": "live"})
    postgres.bootstrap(settings)
    schema.apply(settings)
    return settings


@pytest.fixture
def own(database: Settings) -> Settings:
    """A database that no other test writes to, its tails empty."""
    empty(database)
    return database


def empty(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute("truncate live.trade_tail, live.quote_tail, live.feature_latest, live.batch")


def write(settings: Settings, number: int, items: Sequence[Item], query: str = "live_features/test") -> Written:
    """One batch of these items, in their order."""
    trades = trade_frame([one for one in items if isinstance(one, trade_tapes.Trade)])
    quotes = quote_frame([one for one in items if isinstance(one, trade_tapes.Quote)])
    return live_features.write(
        settings,
        query,
        number,
        trades.with_columns(received_at=pl.lit(RECEIVED)).select(TRADE_TAIL.column_names),
        quotes.with_columns(key_ts=pl.when(pl.col("sequence").is_null()).then("event_ts")).select(
            QUOTE_TAIL.column_names
        ),
    )


def stored(settings: Settings) -> pl.DataFrame:
    """All rows of live.feature_latest."""
    with connect(settings) as connection:
        rows = connection.execute(
            f"select {', '.join(FEATURE_LATEST.column_names)} from live.feature_latest"
        ).fetchall()
    return pl.DataFrame(rows, schema=frames.schema(FEATURE_LATEST), orient="row").sort("venue", "product_id")


def wrong(row: pl.DataFrame, items: Sequence[Item], market: tuple[str, str] = (VENUE, PRODUCT)) -> list[str]:
    """Columns of one product's row that are not those of the last row of the tape of all these items."""
    trades = {one.trade_id: one for one in reversed(items) if isinstance(one, trade_tapes.Trade)}
    quotes = {
        (one.sequence, one.event_us if one.sequence is None else None): one
        for one in reversed(items)
        if isinstance(one, trade_tapes.Quote)
    }
    of_market = {"venue": pl.lit(market[0]), "product_id": pl.lit(market[1])}
    whole = trade_features(
        trade_frame(list(trades.values())).with_columns(**of_market),
        quote_frame(list(quotes.values())).with_columns(**of_market),
    ).tail(1)
    same = (*TRADE_FEATURES.key, "event_ts", "price", "size", "taker_side", "history", "is_final")
    return unlike(whole, row, ALL) + [name for name in same if not whole[name].equals(row[name])]


def as_it_happened(tape: Tape) -> list[Item]:
    """Trades and quotes in the order of their times, quotes first."""
    return sorted([*tape.quotes, *tape.trades], key=lambda one: one.event_us)


def cut(items: Sequence[Item], chance: random.Random) -> Iterator[list[Item]]:
    """Batches of any size, from one item to a backlog."""
    rest = list(items)
    while rest:
        size = chance.choice([1, 30, 150, 400, 900])
        yield rest[:size]
        rest = rest[size:]


def disordered(tape: Tape, chance: random.Random) -> list[Item]:
    """As it happened, but one in five late by up to 200 others, some twice, a few told again with another price."""
    items = as_it_happened(tape)
    places = [place + (chance.random() * 200 if chance.random() < 0.2 else 0) for place in range(len(items))]
    arrived = [one for _, one in sorted(zip(places, items, strict=True), key=lambda pair: pair[0])]
    for _ in range(40):
        place = chance.randrange(len(arrived))
        again = arrived[place]
        if isinstance(again, trade_tapes.Trade) and chance.random() < 0.5:
            again = replace(again, price=again.price + 1)
        arrived.insert(chance.randrange(place + 1, len(arrived) + 1), again)
    return arrived


@pytest.mark.parametrize("name", ODD_MARKETS)
def test_after_every_batch_the_row_is_the_last_of_the_whole_tape(own: Settings, name: str) -> None:
    chance = random.Random(name)
    arrived = disordered(made(name, 3, chance.choice([300, 620, 1_100])), chance)
    seen: list[Item] = []
    for number, batch in enumerate(cut(arrived, chance)):
        write(own, number, batch)
        seen += batch
        row = stored(own)
        if not any(isinstance(one, trade_tapes.Trade) for one in seen):
            assert row.is_empty()
        elif number % 4 == 0 or len(seen) == len(arrived):
            assert wrong(row, seen) == [], f"{name}, batch {number}"
            assert row["received_at"].to_list() == [RECEIVED]


def test_shuffled_altogether_it_is_the_same_row(own: Settings) -> None:
    arrived = as_it_happened(made("trades_partly_without_sequence", 8, 700))
    random.Random(2).shuffle(arrived)
    for number in range(5):
        write(own, number, arrived[number::5])
    seen = [one for number in range(5) for one in arrived[number::5]]
    assert wrong(stored(own), seen) == []
    assert tails(own) == (501, tails(own)[1])


def tails(settings: Settings) -> tuple[int, int]:
    with connect(settings) as connection:
        row = connection.execute(
            "select (select count(*) from live.trade_tail), (select count(*) from live.quote_tail)"
        )
        return row.fetchall()[0]  # type: ignore[return-value]


def test_one_trade_missing_from_the_tail_is_seen(own: Settings) -> None:
    """The check that the tests above rest on."""
    items = as_it_happened(made("bitcoin", 4, 800))
    write(own, 0, items[:-6])
    with connect(own) as connection:
        lost = "select trade_id from live.trade_tail order by trade_id desc offset 30 limit 1"
        connection.execute(f"delete from live.trade_tail where trade_id = ({lost})")
    write(own, 1, items[-6:])
    found = wrong(stored(own), items)
    assert {"ma_100_trades", "volume_50", "buy_volume_100", "gaps_in_window_500"} <= set(found)
    assert "best_bid" not in found


def test_a_late_trade_a_healed_hole_and_a_late_quote_change_the_row(own: Settings) -> None:
    items = as_it_happened(made("bitcoin", 5, 700))
    trades = [one for one in items if isinstance(one, trade_tapes.Trade)]
    last = trades[-1]
    quote = [one for one in items if isinstance(one, trade_tapes.Quote) and (one.sequence or 0) < (last.sequence or 0)][
        -1
    ]
    hole, late = trades[-40:-30], trades[-3]
    held_back: list[Item] = [*hole, late, quote]
    write(own, 0, [one for one in items if one not in held_back])
    first = stored(own).row(0, named=True)
    assert first["gaps_in_window_500"] is None or first["gaps_in_window_500"] >= 2
    seen = [one for one in items if one not in held_back]
    for number, more in enumerate(([*hole], [late], [quote]), 1):
        before = stored(own)
        write(own, number, more)
        seen += more
        assert wrong(stored(own), seen) == []
        assert stored(own)["trade_id"].to_list() == before["trade_id"].to_list() == [last.trade_id]
        assert not stored(own).drop("written_at").equals(before.drop("written_at"))


def test_a_batch_that_comes_twice_does_nothing_and_a_new_checkpoint_changes_no_value(own: Settings) -> None:
    items = as_it_happened(made("bitcoin", 6, 640))
    write(own, 0, items[:900])
    assert write(own, 1, items[900:]).trades > 0
    before, kept = stored(own), tails(own)
    assert write(own, 1, items[900:]) == Written(repeated=True)
    assert write(own, 0, items[:900]) == Written(repeated=True)
    assert stored(own).equals(before)
    for number, first in enumerate(range(0, len(items), 300)):
        write(own, number, items[first : first + 300], "live_features/another")
    assert stored(own).drop("written_at").equals(before.drop("written_at"))
    assert tails(own) == kept


def test_a_warm_up_is_there_with_its_history_and_nulls(own: Settings) -> None:
    items = as_it_happened(made("bitcoin", 7, 60))
    write(own, 0, items)
    row = stored(own).row(0, named=True)
    assert (row["history"], row["is_final"], row["future_price_10"]) == (59, False, None)
    assert row["ma_50_trades"] is not None
    assert row["ma_100_trades"] is row["gaps_in_window_500"] is None


def test_quotes_without_trades_make_no_row_and_do_not_pile_up(own: Settings) -> None:
    one = made("bitcoin", 7, 60).quotes[0]
    hour = [replace(one, event_us=one.event_us + second * 1_000_000, sequence=second + 1) for second in range(3_600)]
    for number in range(4):
        write(own, number, hour[number * 900 : (number + 1) * 900])
    assert stored(own).is_empty()
    assert tails(own) == (0, 901)


def test_an_amount_that_the_kernel_refuses_stops_nothing(own: Settings) -> None:
    items = as_it_happened(made("bitcoin", 9, 80))
    trade = next(one for one in reversed(items) if isinstance(one, trade_tapes.Trade))
    quote = next(one for one in reversed(items) if isinstance(one, trade_tapes.Quote))
    beyond = trade.price * 0 + 2 * 10**17
    odd = [
        replace(trade, trade_id=trade.trade_id + 1, size=beyond),
        replace(quote, best_ask_size=beyond, sequence=10**12),
    ]
    write(own, 0, [*items, *odd])
    assert wrong(stored(own), items) == []


def captured(name: str, venue: str, most: int) -> list[Prepared]:
    """The first messages of a capture, with the headers that a producer gives."""
    return list(islice(prepared(CAPTURES / name, venue, Options()), most))


def told(sent: Sequence[Prepared]) -> dict[tuple[str, str], list[Item]]:
    """Venue and product → its trades and quotes, in the order in which they were sent."""
    found: dict[tuple[str, str], list[Item]] = {}
    kinds = {Trade: (TRADES, trade_tapes.Trade), Quote: (TICKER, trade_tapes.Quote)}
    for one in sent:
        outcome = venues.parse(one.headers, one.value)
        for item in outcome.items if isinstance(outcome, Parsed) else ():
            topic, kind = kinds.get(type(item), (None, None))
            if topic is one.topic:
                own = kind(**{part.name: getattr(item, part.name) for part in fields(kind)})
                found.setdefault((item.venue, item.product_id), []).append(own)
    return found


def test_the_query_brings_two_topics_into_rows_through_a_kill_and_a_lost_checkpoint(
    own: Settings, lake: SparkSession
) -> None:
    kafka.create_topics(own)
    sent = [
        *captured("coinbase/cryptofeed-exchange-2021-04-17.match-ticker.ndjson", "coinbase_exchange", 300),
        *captured("tape/binance-btcusdt-spot-trades-2026-02-16T0400.parquet", "binance", 700),
    ]
    ours = told(sent)
    assert max(sum(isinstance(one, trade_tapes.Trade) for one in items) for items in ours.values()) > 501
    assert any(isinstance(one, trade_tapes.Quote) for items in ours.values() for one in items)
    client = producer(own)

    def send(some: Sequence[Prepared]) -> None:
        for one in some:
            name, headers = one.topic.full_name(own.topic_prefix), [(k, v.encode()) for k, v in one.headers.items()]
            client.produce(name, one.value, key=one.key, headers=headers)
        for topic in (TRADES, TICKER):  # what no parser takes
            client.produce(topic.full_name(own.topic_prefix), b"\xff{", headers=[("venue", b"binance")])
        assert client.flush(30) == 0

    def drain() -> None:
        query = live_features.start_query(lake, own, available_now=True)
        assert query.awaitTermination(120)
        assert query.exception() is None

    def assert_right(items: dict[tuple[str, str], list[Item]]) -> None:
        rows = stored(own)
        with_trades = {
            market for market, found in items.items() if any(isinstance(o, trade_tapes.Trade) for o in found)
        }
        assert set(rows.select("venue", "product_id").rows()) == with_trades
        for row in rows.iter_slices(1):
            market = (row.item(0, "venue"), row.item(0, "product_id"))
            assert wrong(row, items[market], market) == [], market

    send([*sent[::2], *sent[1::2]][: len(sent) * 2 // 3])
    drain()
    first = stored(own)
    # a kill between PostgreSQL's commit and the checkpoint's: Spark runs the batch again
    commits = Path(own.checkpoints.removeprefix("file://")) / live_features.QUERY / "commits"
    newest = max((file for file in commits.iterdir() if file.name.isdigit()), key=lambda file: int(file.name))
    newest.unlink()
    (commits / f".{newest.name}.crc").unlink(missing_ok=True)
    drain()
    assert stored(own).equals(first)
    send([*sent[::2], *sent[1::2]][len(sent) * 2 // 3 :])
    drain()
    assert_right(ours)
    last = stored(own).drop("written_at")
    shutil.rmtree(commits.parent)
    drain()
    assert stored(own).drop("written_at").equals(last)
