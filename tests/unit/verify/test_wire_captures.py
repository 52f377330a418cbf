"""The judge's own reading of every carried capture says what the parsers say, by code that shares nothing with them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow import venues
from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.records import Candle, Ignored, Parsed, RejectedItem
from marketflow.contracts.topics import CANDLES
from marketflow.ingest.captures import files_of
from marketflow.ingest.replay import Options, Prepared, _venue_of, prepared
from marketflow.verify import wire
from marketflow.verify.wire_items import Item, Message
from tests.candle_pages import PAGES, RECEIVED_US

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
FILES = files_of([CAPTURES])
# columns that a record names by their unit
ATTRIBUTES = {"event_ts": "event_us", "last_updated": "last_updated_us", "open_ts": "open_us"}


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
        interval=headers.get("interval"),
    )
    return wire.read(said, frozenset(PRODUCTS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_judge_and_parser_read_a_capture_alike(path: Path) -> None:
    options = Options(vs_currency="usd")
    seen: Counter[str] = Counter()
    for message in prepared(path, _venue_of(path, options), options):
        seen += read_alike(message)
    assert seen.total() > 0


def read_alike(message: Prepared) -> Counter[str]:
    """Hold the judge's items against the parser's; what there was of each kind."""
    items, outcome = read_by_the_judge(message), venues.parse(message.headers, message.value)
    if not isinstance(outcome, Parsed):
        assert [item.index for item in items] == ([] if isinstance(outcome, Ignored) else [-1]), outcome
        return Counter(["nothing" if isinstance(outcome, Ignored) else "refused"])
    assert len(items) == len(outcome.items)
    for item, record in zip(items, outcome.items, strict=True):
        assert (item.kind == "refused") == isinstance(record, RejectedItem), (item, record)
        for name, value in item.fields.items():
            assert getattr(record, ATTRIBUTES.get(name, name)) == value, (name, item, record)
        if isinstance(record, Candle):
            assert item.fields.keys() == {"open_ts", *record.__struct_fields__} - {"open_us"}
    return Counter(item.kind for item in items)


def page(headers: dict[str, str], value: bytes) -> Prepared:
    return Prepared(CANDLES, b"", value, headers)


@pytest.mark.parametrize("venue", sorted(PAGES))
def test_judge_and_parser_read_a_page_of_candles_alike(venue: str) -> None:
    headers, value = PAGES[venue]
    assert read_alike(page(headers, value)) == {"candles": 2, "refused": 1}
    for change in (
        *({"product_id": ""}, {"product_id": "BTC-USDT"}, {"product_id": "BTC-USD"}, {"product_id": "SKL-BTC"}),
        *({"interval": "1h"}, {"interval": ""}, {"interval": "2m"}, {"http_status": "429"}, {"channel": "other"}),
    ):
        read_alike(page(headers | change, value))
    for odd in (b"[]", b"{}", b"null", b"7", b'{"candles":[]}', b'{"candles":7}', b'{"Response":7}', b"[7,[],[1,2]]"):
        read_alike(page(headers, odd))


odd_values = st.sampled_from(
    ["null", "true", '"x"', '""', "0", "-1", "1e-19", "1e20", "0.1", '"0.1"', "12345678901.25", "[]", "{}", "1e-21"]
)


@pytest.mark.parametrize("venue", sorted(PAGES))
@given(place=st.integers(0, 200), value=odd_values, moved_us=st.integers(-90_000_000, 90_000_000))
def test_judge_and_parser_refuse_the_same_candles(venue: str, place: int, value: str, moved_us: int) -> None:
    headers, body = PAGES[venue]
    texts = list(re.finditer(rb'"?[0-9][0-9.e-]*"?(?=[,}\]])', body))
    found = texts[place % len(texts)]
    changed = body[: found.start()] + value.encode() + body[found.end() :]
    read_alike(page(headers | {"received_at": str(RECEIVED_US + moved_us)}, changed))


def test_the_captures_hold_each_kind_of_row_and_a_refusal() -> None:
    options = Options(vs_currency="usd")
    kinds = {
        item.kind
        for path in FILES
        for message in list(prepared(path, _venue_of(path, options), options))[:300]
        for item in read_by_the_judge(message)
    }
    assert kinds == {"trades", "quotes", "asset_prices", "refused"}
