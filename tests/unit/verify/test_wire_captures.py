"""The judge's own reading of every carried capture says what the parsers say, by code that shares nothing with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.records import Ignored, Parsed, RejectedItem
from marketflow.ingest.captures import files_of
from marketflow.ingest.replay import Options, Prepared, _venue_of, prepared
from marketflow.verify import wire
from marketflow.verify.wire_items import Item, Message

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
FILES = files_of([CAPTURES])
# columns that a record names by their unit
ATTRIBUTES = {"event_ts": "event_us", "last_updated": "last_updated_us"}


def read_by_the_judge(message: Prepared) -> list[Item]:
    headers = {"poll_id": "p", "poll_started_at": "1", **message.headers}
    numbers = {
        name: int(headers[name]) if name in headers else None
        for name in ("received_at", "http_status", "poll_started_at")
    }
    said = Message(
        value=message.value,
        venue=headers["venue"],
        channel=headers["channel"],
        received_at=numbers["received_at"],
        http_status=numbers["http_status"],
        product_id=headers.get("product_id"),
        vs_currency=headers.get("vs_currency"),
        poll_id=headers["poll_id"],
        poll_started_at=numbers["poll_started_at"],
        oversize=None,
    )
    return wire.read(said, frozenset(PRODUCTS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_judge_and_parser_read_a_capture_alike(path: Path) -> None:
    options = Options(vs_currency="usd")
    seen: Counter[str] = Counter()
    for message in prepared(path, _venue_of(path, options), options):
        items, outcome = read_by_the_judge(message), venues.parse(message.headers, message.value)
        if not isinstance(outcome, Parsed):
            seen["nothing" if isinstance(outcome, Ignored) else "refused"] += 1
            assert [item.index for item in items] == ([] if isinstance(outcome, Ignored) else [-1])
            continue
        assert len(items) == len(outcome.items)
        for item, record in zip(items, outcome.items, strict=True):
            seen[item.kind] += 1
            assert (item.kind == "refused") == isinstance(record, RejectedItem), (item, record)
            for name, value in item.fields.items():
                assert getattr(record, ATTRIBUTES.get(name, name)) == value, (name, item, record)
    assert seen.total() > 0


def test_the_captures_hold_each_kind_of_row_and_a_refusal() -> None:
    options = Options(vs_currency="usd")
    kinds = {
        item.kind
        for path in FILES
        for message in list(prepared(path, _venue_of(path, options), options))[:300]
        for item in read_by_the_judge(message)
    }
    assert kinds == {"trades", "quotes", "asset_prices", "refused"}
