"""Every form of capture gives its messages, byte for byte where the file has them, with what it says of each."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketflow import venues
from marketflow.contracts.records import AssetPrice, Candle, Ignored, Parsed, Trade, Unparseable
from marketflow.contracts.topics import CANDLES, PRICES, TICKER, TRADES
from marketflow.errors import ConfigurationError
from marketflow.ingest.captured import time_us
from marketflow.ingest.captures import files_of, read, unwrapped
from marketflow.ingest.replay import Options, Prepared, _venue_of, prepared, replay_files
from marketflow.ingest.sniff import identify, topic_for
from marketflow.lake import message_headers, silver_sources
from marketflow.settings import Settings
from tests import candle_pages

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures"
MATCH = (
    b'{"type":"match","trade_id":7,"side":"sell","size":"0.10","price":"10.5","product_id":"BTC-USD","sequence":9,'
    b'"time":"2026-07-07T22:58:16.156605Z"}'
)
MATCH_US = 1_783_465_096_156_605


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def messages(path: Path, **options: str) -> list[Prepared]:
    asked = Options(**options)
    return list(prepared(path, _venue_of(path, asked), asked))


def test_ndjson_gives_each_line_as_it_is(tmp_path: Path) -> None:
    broken = b'{"type":"match","trade_id":'
    path = write(tmp_path, "a.ndjson", MATCH + b"\r\n\n" + broken + b"\n\xff\xfe\n" + MATCH)
    found = messages(path)
    assert [message.value for message in found] == [MATCH, broken, b"\xff\xfe", MATCH]
    assert [message.headers["channel"] for message in found] == ["matches", "undecodable", "undecodable", "matches"]
    assert {message.headers["venue"] for message in found} == {"coinbase_exchange"}
    assert all("reconstructed" not in message.headers for message in found)
    assert [message.key for message in found] == [
        b"coinbase_exchange|BTC-USD",
        b"coinbase_exchange",
        b"coinbase_exchange",
        b"coinbase_exchange|BTC-USD",
    ]


def test_gzipped_ndjson_is_read_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a.ndjson.gz", gzip.compress(MATCH + b"\n" + MATCH))
    assert [message.value for message in messages(path)] == [MATCH, MATCH]


def test_ndjson_under_another_name_is_known_by_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "capture.txt", MATCH + b"\n" + MATCH + b"\n")
    assert len(list(read(path))) == 2


def test_a_json_body_is_one_message(tmp_path: Path) -> None:
    body = b'[\n {"id": "bitcoin",\n  "current_price": 1.0}\n]\n'
    path = write(tmp_path, "page.json", body)
    (message,) = messages(path, vs_currency="usd")
    assert message.value == body.strip()
    assert (message.topic, message.key) == (PRICES, b"coingecko")
    assert message.headers["vs_currency"] == "usd"


def test_an_envelope_gives_its_raw_text_byte_for_byte_and_its_headers() -> None:
    envelope = {
        "raw": MATCH.decode(),
        "received_at_us": 1_783_465_096_200_000,
        "venue": "coinbase_exchange",
        "channel": "matches",
        "connection_id": "c1",
        "something": "else",
    }
    captured = unwrapped(json.dumps(envelope).encode())
    assert (captured.value, captured.reconstructed) == (MATCH, False)
    assert captured.headers == {
        "venue": "coinbase_exchange",
        "channel": "matches",
        "connection_id": "c1",
        "received_at": "1783465096200000",
    }


def test_an_envelope_may_carry_any_bytes_in_base64() -> None:
    envelope = {"raw_base64": base64.b64encode(b"\xff\x00").decode(), "venue": "coinbase_exchange"}
    captured = unwrapped(json.dumps(envelope).encode())
    assert (captured.value, captured.reconstructed) == (b"\xff\x00", False)


def test_a_message_that_the_recorder_decoded_is_marked_as_rebuilt_and_keeps_its_digits() -> None:
    line = b'{"timestamp": "2026-07-07T22:58:16.5", "raw": {"type": "match", "price": 0.10000000000000000001}}'
    captured = unwrapped(line)
    assert captured.value == b'{"type": "match", "price": 0.10000000000000000001}'
    assert captured.reconstructed
    assert captured.headers == {"received_at": "1783465096500000"}  # a time without a zone is UTC


@pytest.mark.parametrize(
    ("line", "taken_out"),
    [
        (b'{"data": {"type": "match"}}', True),
        (b'{"ts": 1783465096, "data": "{}"}', True),
        (b'{"poll_id": "p", "data": [1]}', True),
        (b'{"stream": "btcusdt@trade", "data": {"e": "trade"}}', False),  # Binance's own
        (b'{"data": [{"id": "bitcoin"}], "timestamp": 1739399343596}', False),  # CoinCap's own
        (b'{"type": "status", "data": {}}', False),
    ],
)
def test_a_data_key_is_an_envelope_only_where_the_venue_has_none_of_its_own(line: bytes, taken_out: bool) -> None:
    assert (unwrapped(line).value != line) is taken_out


def test_a_broken_envelope_is_replayed_as_it_is() -> None:
    for line in (b'{"raw": "\\ud800"}', b'{"raw_base64": "%%%"}', b'{"raw": "\xff"}'):
        assert unwrapped(line).value == line


def test_received_at_is_the_recorders_else_the_events_else_the_message_befores(tmp_path: Path) -> None:
    lines = [
        b'{"type":"subscriptions","channels":[]}',  # nothing says when: the file's own time
        MATCH,
        b'{"type":"error","message":"x"}',  # the match's
        b'{"type":"match","trade_id":8,"product_id":"BTC-USD","time":"0001-01-01T00:00:00Z"}',  # no real time
        json.dumps({"raw": MATCH.decode(), "received_at_us": 5}).encode(),
    ]
    path = write(tmp_path, "a.ndjson", b"\n".join(lines))
    written = str(path.stat().st_mtime_ns // 1000)
    assert [message.headers["received_at"] for message in messages(path)] == [
        written,
        *[str(MATCH_US)] * 3,
        "5",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-07-07T22:58:16.156605Z", MATCH_US),
        ("2026-07-08T00:58:16.156605+02:00", MATCH_US),
        (1783465096, 1_783_465_096_000_000),
        (1783465096.5, 1_783_465_096_500_000),
        ("1783465096157", 1_783_465_096_157_000),
        (MATCH_US, MATCH_US),
        (MATCH_US * 1000, MATCH_US),
        (datetime(2026, 7, 7, 22, 58, 16, 156605, tzinfo=UTC), MATCH_US),
        ("yesterday", None),
        (True, None),
        (-1, None),
        (None, None),
    ],
)
def test_times_are_read_in_every_unit_that_recorders_use(value: object, expected: int | None) -> None:
    assert time_us(value) == expected


def test_the_carried_captures_are_all_known_by_their_content() -> None:
    expected = {
        "coinbase/exchange-matches-btc-eth-2026-07-07.filtered.ndjson": ("coinbase_exchange", {TRADES: 556}),
        "coinbase/cryptofeed-exchange-2021-04-17.match-ticker.ndjson": (
            "coinbase_exchange",
            {TRADES: 107, TICKER: 107},
        ),
        "binance/ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson": ("binance", {TRADES: 2063}),
        "binance/rest-ticker-24hr-2019-05-03.json": ("binance", {PRICES: 1}),
        "coingecko/markets-2022-01-rank6-20.json": ("coingecko", {PRICES: 1}),
        "coingecko/markets-docs-example-2024-04.json": ("coingecko", {PRICES: 1}),
        "coingecko/error-422-missing-vs_currency.json": ("coingecko", {PRICES: 1}),
        "coingecko/error-500.json": ("coingecko", {PRICES: 1}),
        "tape/binance-btcusdt-spot-trades-2026-02-16T0400.parquet": ("binance", {TRADES: 10215}),
        # venue new: carried capture
    }
    found = {}
    for path in files_of([CAPTURES]):
        counts: dict[object, int] = {}
        for message in messages(path, vs_currency="usd"):
            counts[message.topic] = counts.get(message.topic, 0) + 1
            assert message.headers["origin"] == "replay"
        found[str(path.relative_to(CAPTURES))] = (_venue_of(path, Options()), counts)
    assert found == expected


@pytest.mark.parametrize(
    ("body", "venue", "channel", "topic"),
    [
        ('{"Response":"Success","Data":{"TimeTo":1579351620}}', "cryptocompare", "histominute", CANDLES),
        ('{"RAW":{"BTC":{"USD":{"LASTUPDATE":1579367455}}}}', "cryptocompare", "pricemultifull", PRICES),
        ('{"data":[{"id":"bitcoin","priceUsd":"1"}],"timestamp":1739399343596}', "coincap", "assets", PRICES),
        ('[{"symbol":"BNBBTC","lastPrice":"4","closeTime":1499869899040}]', "binance", "ticker_24hr", PRICES),
        ('{"u":1,"s":"BNBUSDT","b":"1","B":"2","a":"3","A":"4"}', "binance", "bookTicker", TICKER),
        ('{"type":"ticker","product_id":"BTC-USD","volume_24_h":"1"}', "coinbase_advanced", "ticker", TICKER),
        (
            '{"channel":"market_trades","timestamp":"2025-12-31T06:00:12Z","events":[]}',
            "coinbase_advanced",
            "market_trades",
            TRADES,
        ),
        ('[{"trade_id":1,"side":"buy","time":"2026-07-07T22:58:16Z"}]', "coinbase_exchange", "trades", TRADES),
        *(
            (value.decode(), venue, headers["channel"], CANDLES)
            for venue, (headers, value) in sorted(candle_pages.PAGES.items())
        ),
    ],
)
def test_the_other_venues_are_known_though_they_have_no_parser(
    body: str, venue: str, channel: str, topic: object
) -> None:
    identity = identify(body.encode())
    assert (identity.venue, identity.channel) == (venue, channel)
    assert topic_for(venue, channel, body.encode()) is topic


@pytest.mark.parametrize(
    ("name", "content", "options", "named"),
    [
        ("x.json", b'{"hello": 1}', {}, "--venue"),
        ("x.json", b'[{"current_price": 1}]', {}, "--vs-currency"),
        ("x.json", b'[{"trade_id": 1, "side": "buy"}]', {}, "--product"),
        ("x.json", candle_pages.EXCHANGE, {}, "does not say its product_id: name it with --product"),
        ("x.json", candle_pages.EXCHANGE, {"product": "BTC-USD"}, "does not say its interval: name it with --interval"),
        ("x.json", candle_pages.HISTORY, {}, "--product"),
        ("x.json", candle_pages.EXCHANGE, {"interval": "2m"}, "--interval: '2m' is none of 1m, 5m, 15m, 1h, 6h, 1d"),
        ("x.ndjson", b"{}\n", {"venue": "Not A Venue"}, "--venue"),
        ("x.ndjson", b"{}\n", {"venue": "coinbase"}, "--venue: 'coinbase' is unknown; known: .*coinbase_exchange"),
        ("x.ndjson", MATCH, {"channel": "match"}, "--channel: 'match' is unknown; known: .*matches"),
        ("x.ndjson", MATCH, {"vs_currency": "dollars"}, "--vs-currency: 'dollars'"),
        ("x.ndjson", MATCH, {"product": "BTC-DOGE"}, "--product"),
        ("x.ndjson", b"\n\n", {}, r"x\.ndjson: holds no message"),
        ("x.ndjson", b"once upon a time\n", {}, "the first begins 'once upon a time'.*--venue"),
    ],
)
def test_what_a_capture_lacks_is_asked_for_by_the_options_name(
    tmp_path: Path, name: str, content: bytes, options: dict[str, str], named: str
) -> None:
    path = write(tmp_path, name, content)
    settings = Settings(dataset="replay", kafka_bootstrap_servers="127.0.0.1:1")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=named):
        replay_files(settings, [path], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dataset", ["sim", "live"])
def test_a_capture_never_meets_live_or_simulated_data(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(ConfigurationError, match="MARKETFLOW_DATASET"):
        replay_files(Settings(dataset=dataset), [write(tmp_path, "a.ndjson", MATCH)])  # type: ignore[arg-type]


def test_options_fill_what_the_file_lacks_and_overrule_nothing(tmp_path: Path) -> None:
    (page,) = messages(write(tmp_path, "t.json", b'[{"trade_id":1,"side":"buy"}]'), product="ETH-USD", venue="binance")
    assert (page.headers["venue"], page.headers["product_id"], page.headers["channel"]) == (
        "coinbase_exchange",
        "ETH-USD",
        "trades",
    )
    (error,) = messages(write(tmp_path, "e.json", b'{"error": "x"}'), venue="coingecko")
    assert (error.headers["venue"], error.topic) == ("coingecko", PRICES)
    assert isinstance(venues.parse(error.headers, error.value), Unparseable)


def test_a_page_without_a_poll_gets_one_that_is_the_same_each_time(tmp_path: Path) -> None:
    body = b'[{"id":"x","symbol":"x","name":"X","current_price":2,"last_updated":"2026-07-07T22:58:16Z"}]'
    path = write(tmp_path, "p.json", body)
    (first,), (second,) = messages(path, vs_currency="usd"), messages(path, vs_currency="usd")
    assert first.headers == second.headers
    assert first.headers["poll_started_at"] == first.headers["received_at"] == "1783465096000000"
    outcome = venues.parse(first.headers, first.value)
    assert isinstance(outcome, Parsed)
    assert isinstance(outcome.items[0], AssetPrice)


@pytest.mark.parametrize(
    ("venue", "body"),
    [
        ("coincap", b'{"data":[{"id":"bitcoin","symbol":"BTC","name":"B","priceUsd":"1"}],"timestamp":1739399343596}'),
        ("binance", b'[{"symbol":"BTCUSDT","lastPrice":"4","closeTime":1783465096000}]'),
        (
            "cryptocompare",
            b'{"RAW":{"BTC":{"USD":{"FROMSYMBOL":"BTC","TOSYMBOL":"USD","PRICE":1,"LASTUPDATE":1579367455}}}}',
        ),
    ],
)
def test_a_page_of_any_aggregator_has_all_that_a_row_of_prices_is_filled_from(
    tmp_path: Path, venue: str, body: bytes
) -> None:
    (page,) = messages(write(tmp_path, "p.json", body))
    assert (page.headers["venue"], page.topic) == (venue, PRICES)
    assert message_headers.unfit(silver_sources.PRICES, [page.headers]) == {}
    outcome = venues.parse(page.headers, page.value)
    assert isinstance(outcome, Parsed)
    assert [type(item) for item in outcome.items] == [AssetPrice]


def test_a_trades_parquet_is_rebuilt_as_the_venues_own_messages(tmp_path: Path) -> None:
    table = pa.table(
        {
            "trade_id": pa.array([7, 8], pa.int64()),
            "price": pa.array([Decimal("0.000000010000000000"), Decimal("12.5")], pa.decimal128(38, 18)),
            "size": pa.array(["0.10", "2"]),
            "taker_side": ["buy", "sell"],
            "event_ts": pa.array([MATCH_US, MATCH_US + 1], pa.timestamp("us", "UTC")),
            "product_id": ["BTC-USD", "BTC-USD"],
            "venue": ["coinbase_exchange"] * 2,
        }
    )
    path = tmp_path / "trades.parquet"
    pq.write_table(table, path)
    found = messages(path)
    assert [message.headers["reconstructed"] for message in found] == ["1", "1"]
    outcomes = [venues.parse(message.headers, message.value) for message in found]
    trades = [outcome.items[0] for outcome in outcomes if isinstance(outcome, Parsed)]
    assert all(isinstance(trade, Trade) for trade in trades)
    assert [
        (trade.trade_id, trade.price, trade.size, trade.taker_side, trade.event_us)
        for trade in trades
        if isinstance(trade, Trade)
    ] == [
        (7, Decimal("0.00000001"), Decimal("0.1"), "buy", MATCH_US),
        (8, Decimal("12.5"), Decimal(2), "sell", MATCH_US + 1),
    ]


def test_a_tape_of_binance_is_rebuilt_with_the_takers_side_ids_and_times() -> None:
    path = CAPTURES / "tape" / "binance-btcusdt-spot-trades-2026-02-16T0400.parquet"
    rows = pq.read_table(path).to_pylist()
    found = list(prepared(path, "binance", Options()))
    assert {(message.headers["venue"], message.headers["reconstructed"]) for message in found} == {("binance", "1")}
    outcomes = [venues.parse(message.headers, message.value) for message in found]
    trades = [item for outcome in outcomes if isinstance(outcome, Parsed) for item in outcome.items]
    assert [
        (trade.product_id, trade.trade_id, trade.price, trade.size, trade.taker_side, trade.event_us)
        for trade in trades
        if isinstance(trade, Trade)
    ] == [
        (
            "BTC-USDT",
            int(row["trade_id"]),
            Decimal(repr(row["price"])),
            Decimal(repr(row["qty"])),
            row["side"],
            row["exch_ts_ms"] * 1000,
        )
        for row in rows
    ]


def test_a_trades_parquet_of_a_venue_without_a_rule_keeps_every_column_of_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    pq.write_table(pa.table({"id": ["7"], "odd": [1.5]}), path)
    (only,) = messages(path, venue="coincap")
    assert json.loads(only.value) == {"id": "7", "odd": 1.5}
    assert (only.headers["venue"], only.headers["reconstructed"]) == ("coincap", "1")


def test_a_broken_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    path.write_bytes(b"PAR1 and no footer")
    with pytest.raises(ConfigurationError, match=r"trades\.parquet is no Parquet file"):
        list(read(path, venue="binance"))


@pytest.mark.parametrize("venue", sorted(candle_pages.PAGES))
def test_a_page_of_candles_proves_no_more_than_that_its_newest_had_begun(tmp_path: Path, venue: str) -> None:
    headers, value = candle_pages.PAGES[venue]
    path = write(tmp_path, "page.json", value)
    options = {"product": headers["product_id"]} | ({} if venue == "cryptocompare" else {"interval": "1m"})
    (page,) = messages(path, **options)
    assert (page.topic, page.key) == (CANDLES, f"{venue}|{headers['product_id']}".encode())
    assert page.headers["received_at"] == str((candle_pages.NOON_S + 120) * 1_000_000)
    outcome = venues.parse(page.headers, page.value)
    assert isinstance(outcome, Parsed)
    assert sorted(type(item).__name__ for item in outcome.items) == ["Candle", "Candle", "RejectedItem"]


def test_an_envelope_says_of_a_page_of_candles_what_an_option_would(tmp_path: Path) -> None:
    said = {"received_at_us": candle_pages.RECEIVED_US + 30_000_000, "product_id": "ETH-USD", "interval": "1m"}
    line = json.dumps(said | {"raw": candle_pages.EXCHANGE.decode()}).encode()
    (page,) = messages(write(tmp_path, "page.ndjson", line), product="BTC-USD", interval="1h")
    outcome = venues.parse(page.headers, page.value)
    assert isinstance(outcome, Parsed)
    assert [(type(item), getattr(item, "product_id", "")) for item in outcome.items] == [(Candle, "ETH-USD")] * 3


def test_an_error_of_a_history_call_needs_no_product(tmp_path: Path) -> None:
    (error,) = messages(write(tmp_path, "error.json", b'{"Response":"Error","Message":"x","Type":99,"Data":{}}'))
    assert venues.parse(error.headers, error.value) == Ignored("venue_error")
