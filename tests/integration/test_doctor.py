"""What doctor sees of real servers."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from marketflow.settings import Settings
from marketflow.stack import doctor, status
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock


def test_a_held_lock_is_shown_with_its_holder_and_a_free_one_is_not(embedded: Settings) -> None:
    with table_lock(embedded, "gold.bars"):
        [held] = doctor._locks(embedded)
    [free] = doctor._locks(embedded)
    assert held.seen.startswith("held by ")
    assert "(pid " in held.seen
    assert "unnamed" not in held.seen
    assert (free.seen, held.problem, free.problem) == ("none is held", None, None)


def test_a_lock_that_another_role_holds_is_shown_too(embedded: Settings) -> None:
    with psycopg.connect(embedded.dsn("postgres", embedded.postgres_database)) as other:
        other.execute("select pg_advisory_xact_lock(7)")
        [held] = doctor._locks(embedded)
        assert held.seen == f"held by another role (pid {other.info.backend_pid})"


def test_what_the_feeds_lost_just_now_is_told_and_what_they_lost_long_ago_is_not(embedded: Settings) -> None:
    with connect(embedded) as connection:
        connection.execute("truncate ops.trade_gap")
        for venue, first, last, at in (
            ("coinbase_exchange", 10, 19, datetime.now(UTC)),
            ("coinbase_exchange", 30, 30, datetime.now(UTC)),
            ("binance", 5, 5, datetime(2026, 1, 1, tzinfo=UTC)),
        ):
            ledger.open_hole(
                connection,
                venue=venue,
                product_id="BTC-USD",
                first_missing_id=first,
                last_missing_id=last,
                cause="drop",
                detected_at=at,
                connection_id=None,
            )
        told = status._new_holes(connection)
        connection.rollback()
    assert told == ["coinbase_exchange lost 11 trades in 2 holes in the last ten minutes (drop); `marketflow gaps`"]
