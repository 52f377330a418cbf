"""A line of the raw export is the record again, byte for byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.catalog.raw_lines import line
from marketflow.errors import ConfigurationError
from marketflow.ingest.captures import unwrapped
from marketflow.ingest.replay import Options, prepared

AT = datetime(2026, 11, 20, 5, 6, 7, 890_123, tzinfo=UTC)


def row(
    value: bytes | None, headers: str | None = '{"venue":"binance"}', key: str | None = "binance"
) -> dict[str, object]:
    return {
        "topic": "sim.crypto.trades.raw",
        "partition": 2,
        "offset": 41,
        "key": key,
        "value": value,
        "kafka_timestamp": AT,
        "ingested_at": AT,
        "headers": headers,
    }


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))),
    st.dictionaries(NAMES, st.one_of(st.none(), TEXTS)),
    st.one_of(st.none(), TEXTS),
)
def test_bytes_headers_and_key_come_back_whatever_they_are(
    value: bytes, headers: dict[str, str | None], key: str | None
) -> None:
    text = line(row(value, json.dumps(headers), key), "sim.")
    assert b"\n" not in text
    assert b"\r" not in text
    back = unwrapped(text)
    assert (back.value, back.key, back.topic) == (value, key, "crypto.trades.raw")
    assert back.headers == {name: said for name, said in headers.items() if said is not None}


def test_a_person_can_read_a_line() -> None:
    assert json.loads(line(row(b'{"e":"trade"}'), "sim.")) == {
        "topic": "crypto.trades.raw",
        "partition": 2,
        "offset": 41,
        "key": "binance",
        "kafka_timestamp_us": 1_795_151_167_890_123,
        "ingested_at_us": 1_795_151_167_890_123,
        "headers": {"venue": "binance"},
        "raw": '{"e":"trade"}',
    }
    # not UTF-8: base64, under another name
    assert json.loads(line(row(b"\xff\x00"), "sim."))["raw_base64"] == "/wA="


def test_the_last_of_a_repeated_header_counts_as_in_silver() -> None:
    assert unwrapped(line(row(b"{}", '{"page":"1","page":"2"}'), "sim.")).headers == {"page": "2"}


def test_a_record_without_a_payload_is_named_and_not_made_up() -> None:
    with pytest.raises(ConfigurationError, match=r"topic crypto.trades.raw, partition 2, offset 41 cannot be replayed"):
        unwrapped(line(row(None), "sim."))


def test_a_replayed_line_keeps_its_topic_key_and_headers_and_its_origin_is_replay(tmp_path: Path) -> None:
    said = {"venue": "binance", "origin": "heal", "received_at": "not a time", "least_trade_id": "BTC-USDT|5"}
    file = tmp_path / "part-00000.jsonl"
    lines = [
        line(row(b'{"e":"trade"}', json.dumps(headers), "k"), "sim.") for headers in (said, {"origin": "wrong"}, {})
    ]
    file.write_bytes(b"\n".join(lines))
    first, second, third = prepared(file, "", Options())
    assert (first.topic.name, first.key, first.value) == ("crypto.trades.raw", b"k", b'{"e":"trade"}')
    # what silver would refuse, it must refuse again: nothing is mended
    assert first.headers == {**said, "origin": "replay"}
    assert second.headers == {"origin": "wrong"}
    assert third.headers == {}
