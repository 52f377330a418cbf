"""The gap ledger: no id is in two rows, whatever is reported twice, in parts, or late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketflow.settings import Settings
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect

VENUE = "coinbase_exchange"
AT = datetime(2026, 7, 7, 12, tzinfo=UTC)
Row = tuple[int, int, str]


def rows(connection: ledger.Connection, product: str) -> list[Row]:
    return connection.execute(
        "select first_missing_id, last_missing_id, status from ops.trade_gap where product_id = %s order by 1",
        (product,),
    ).fetchall()


def opened(
    connection: ledger.Connection, product: str, first: int, last: int, cause: str = "drop"
) -> list[tuple[int, int]]:
    return ledger.open_hole(
        connection,
        venue=VENUE,
        product_id=product,
        first_missing_id=first,
        last_missing_id=last,
        cause=cause,
        detected_at=AT,
    )


def closed(connection: ledger.Connection, product: str, first: int, last: int, status: str = "healed") -> int:
    return ledger.close_hole(
        connection,
        venue=VENUE,
        product_id=product,
        first_id=first,
        last_id=last,
        at=AT + timedelta(minutes=1),
        status=status,
    )


def test_a_hole_reported_twice_is_one_row(embedded: Settings) -> None:
    product = uuid4().hex
    with connect(embedded) as connection:
        assert opened(connection, product, 10, 20) == [(10, 20)]
        assert opened(connection, product, 10, 20) == []
        assert opened(connection, product, 5, 25, "killed") == [(5, 9), (21, 25)]
        assert rows(connection, product) == [(5, 9, "open"), (10, 20, "open"), (21, 25, "open")]


def test_late_trades_split_a_hole_and_join_again_when_all_are_here(embedded: Settings) -> None:
    product = uuid4().hex
    with connect(embedded) as connection:
        opened(connection, product, 10, 14)
        assert closed(connection, product, 12, 12) == 1
        assert rows(connection, product) == [(10, 11, "open"), (12, 12, "healed"), (13, 14, "open")]
        assert closed(connection, product, 12, 12) == 0
        assert closed(connection, product, 13, 13) == 1
        assert rows(connection, product) == [(10, 11, "open"), (12, 13, "healed"), (14, 14, "open")]
        assert closed(connection, product, 1, 99) == 3
        assert rows(connection, product) == [(10, 14, "healed")]
        (row,) = connection.execute(
            "select detected_at, healed_at, cause, attempts from ops.trade_gap where product_id = %s", (product,)
        )
        assert row == (AT, AT + timedelta(minutes=1), "drop", 0)


def test_a_healed_hole_is_not_opened_again_and_a_lost_one_may_be_healed(embedded: Settings) -> None:
    product = uuid4().hex
    with connect(embedded) as connection:
        opened(connection, product, 10, 12)
        closed(connection, product, 10, 11)
        assert opened(connection, product, 10, 12) == []
        assert closed(connection, product, 12, 12, "unrecoverable") == 1
        assert closed(connection, product, 12, 12, "unrecoverable") == 0
        assert rows(connection, product) == [(10, 11, "healed"), (12, 12, "unrecoverable")]
        assert closed(connection, product, 12, 12) == 1
        assert rows(connection, product) == [(10, 12, "healed")]


def test_products_and_open_ranges_are_told_apart(embedded: Settings) -> None:
    one, other = uuid4().hex, uuid4().hex
    with connect(embedded) as connection:
        opened(connection, one, 1, 2)
        opened(connection, one, 5, 9)
        opened(connection, other, 1, 2)
        closed(connection, one, 6, 7)
        found = ledger.open_holes(connection, VENUE)
        assert (found[one], found[other]) == ([(1, 2), (5, 5), (8, 9)], [(1, 2)])
        assert ledger.open_holes(connection, VENUE, other) == {other: [(1, 2)]}


def tried(connection: ledger.Connection, product: str, first: int, last: int, at: datetime, why: str | None) -> int:
    return ledger.attempted(
        connection, venue=VENUE, product_id=product, first_id=first, last_id=last, at=at, detail=why
    )


def test_a_try_is_counted_once_however_often_it_is_written(embedded: Settings) -> None:
    product, at = uuid4().hex, AT + timedelta(seconds=2)
    with connect(embedded) as connection:
        opened(connection, product, 10, 12)
        opened(connection, product, 20, 22)
        assert tried(connection, product, 11, 30, at, None) == 2
        assert tried(connection, product, 11, 30, at, "http 500") == 2
        assert tried(connection, product, 11, 30, at - timedelta(seconds=1), "an older one") == 0
        assert tried(connection, product, 10, 10, at + timedelta(seconds=1), None) == 1
        closed(connection, product, 10, 12)
        assert tried(connection, product, 10, 12, at + timedelta(seconds=9), "a healed hole is not tried") == 0
        found = connection.execute(
            "select attempts, last_attempt_at, detail from ops.trade_gap where product_id = %s order by attempts",
            (product,),
        ).fetchall()
        # what was healed has no reason any more
        assert found == [(1, at, "http 500"), (2, at + timedelta(seconds=1), None)]


def test_what_is_given_up_says_why_and_a_heal_takes_it_back(embedded: Settings) -> None:
    product = uuid4().hex
    with connect(embedded) as connection:
        opened(connection, product, 10, 14)
        given = {"venue": VENUE, "product_id": product, "first_id": 12, "last_id": 99, "at": AT, "detail": "skipped"}
        assert ledger.give_up(connection, **given) == 3
        assert ledger.give_up(connection, **given) == 0
        assert rows(connection, product) == [(10, 11, "open"), (12, 14, "unrecoverable")]
        ids = [(each.first_missing_id, each.last_missing_id) for each in known(connection, product)]
        assert ids == [(10, 11)]
        assert [each.status for each in known(connection, product, unrecoverable=True)] == ["open", "unrecoverable"]
        assert closed(connection, product, 12, 12) == 1
        (healed, open_, *_) = sorted(
            ledger.listed(connection, open_only=False, product_id=product), key=lambda row: row["status"]
        )
        assert (healed["first_missing_id"], healed["latency_s"], healed["detail"]) == (12, 60.0, None)
        assert (open_["first_missing_id"], open_["latency_s"]) == (10, None)
        assert ledger.listed(connection, open_only=False, product_id=product)[-1]["detail"] == "skipped"


def known(connection: ledger.Connection, product: str, **asked: Any) -> list[ledger.Known]:
    return ledger.not_healed(connection, product_id=product, **asked)


def test_a_hole_that_somebody_works_on_is_left_to_them(embedded: Settings) -> None:
    product = uuid4().hex
    with connect(embedded) as connection:
        opened(connection, product, 10, 14)
        assert known(connection, product, untouched_since=AT) == []
        assert len(known(connection, product, untouched_since=AT + timedelta(seconds=1))) == 1
        tried(connection, product, 10, 14, AT + timedelta(minutes=3), "http 500")
        assert known(connection, product, untouched_since=AT + timedelta(minutes=2)) == []
        assert len(known(connection, product, untouched_since=AT + timedelta(minutes=4))) == 1
        assert known(connection, product, venue="another", untouched_since=AT + timedelta(minutes=4)) == []


steps = st.lists(
    st.tuples(st.sampled_from(["open", "healed", "unrecoverable", "tried"]), st.integers(1, 25), st.integers(0, 8)),
    max_size=12,
)


@given(steps=steps)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_equals_a_map_of_single_ids(embedded: Settings, steps: list[tuple[str, int, int]]) -> None:
    """Every step is written twice, as after a broken connection."""
    product = uuid4().hex
    state: dict[int, str] = {}
    most_tries = 0
    with connect(embedded) as connection:
        for number, (status, first, length) in enumerate(steps):
            for _ in range(2):
                if status == "open":
                    opened(connection, product, first, first + length)
                elif status == "tried":
                    tried(connection, product, first, first + length, AT + timedelta(seconds=number), "why")
                else:
                    closed(connection, product, first, first + length, status)
            most_tries += status == "tried"
            for each in range(first, first + length + 1):
                if status == "open":
                    state.setdefault(each, "open")
                elif status != "tried" and state.get(each) not in (None, "healed"):
                    state[each] = status
        found = rows(connection, product)
        tries = connection.execute(
            "select max(attempts), bool_and((attempts > 0) = (last_attempt_at is not null)) "
            "from ops.trade_gap where product_id = %s",
            (product,),
        ).fetchone()
    told = [(each, status) for first, last, status in found for each in range(first, last + 1)]
    assert len({each for each, _ in told}) == len(told)
    assert dict(told) == state
    assert tries is not None
    assert (tries[0] or 0) <= most_tries
    assert tries[1] in (None, True)
