"""Headers read many at once: what one message's headers are does not depend on the others in its batch."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from marketflow.lake import message_headers
from marketflow.lake.silver_sources import PRICES

GOOD = {"venue": "coingecko", "received_at": "1783425600000000", "poll_started_at": "1783425599000000"} | {
    "poll_id": "p1",
    "origin": "live",
}
EDGES = ("253402300799999999", "253402300800000000", "9" * 17, "9" * 18, "9" * 19)
TIMES = st.sampled_from([None, "", "0", "soon", "-1", "1.5", "²", "٣", "1783425600000000", *EDGES])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "received_at": TIMES,
        "poll_started_at": TIMES,
        "poll_id": st.sampled_from([None, "", "p2"]),
        "origin": st.sampled_from([None, "live", "simulated", "elsewhere"]),
    },
).map(lambda other: json.dumps(GOOD | other))
TEXTS = st.one_of(HEADERS, st.just(json.dumps(GOOD)), st.sampled_from([None, "{}", "{not json", "[]", '{"venue": 1}']))


@given(st.lists(TEXTS, max_size=8))
def test_a_batch_reads_as_its_messages_one_by_one(texts: list[str | None]) -> None:
    headers, unread = message_headers.read(texts)
    unfit = message_headers.unfit(PRICES, headers)
    for position, text in enumerate(texts):
        (alone,), why = message_headers.read([text])
        assert headers[position] == alone
        assert unread.get(position) == why.get(0)
        assert unfit.get(position) == message_headers.unfit(PRICES, [alone]).get(0)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_what_is_let_through_can_fill_its_columns(texts: list[str | None]) -> None:
    headers, _ = message_headers.read(texts)
    unfit = message_headers.unfit(PRICES, headers)
    for position, found in enumerate(headers):
        times = [found.get(name) for name in ("received_at", "poll_started_at")]
        is_time = [
            text is not None and text.isascii() and text.isdigit() and len(text) < 19 and int(text) < 253402300800000000
            for text in times
        ]
        fits = all(is_time) and found.get("poll_id") is not None and found.get("origin") in ("live", "simulated")
        assert fits == (position not in unfit)
