"""Every polled source over real HTTP and Kafka: each answer once, whatever it is, and nothing secret in any of it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from marketflow import venues
from marketflow.contracts.records import AssetPrice, Parsed
from marketflow.contracts.sources import SOURCES
from marketflow.settings import Settings
from marketflow.stack import sources
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.integration.polled_venue import CUT, HALF, SLOW, Answer, PolledVenue, polled_venue
from tests.integration.producer_stage import Process, Stored, environment, running, stored, until

SECRET = "a-very-secret-key"
INTERVAL_S = 0.4


def coincap_page() -> bytes:
    """The documentation's element, and a stable coin."""
    bitcoin = {
        **{"id": "bitcoin", "rank": "1", "symbol": "BTC", "name": "Bitcoin", "supply": "19788862.0000000000000000"},
        **{"maxSupply": "21000000.0000000000000000", "marketCapUsd": "1904557171625.0952172577833640"},
        **{"volumeUsd24Hr": "12724040223.1452060699561802", "priceUsd": "96243.8957644504882220"},
        **{"changePercent24Hr": "0.9762522061124105", "vwap24Hr": "95583.4674577419449477"},
    }
    tether = bitcoin | {"id": "tether", "rank": "3", "symbol": "USDT", "name": "Tether", "priceUsd": "0.9997"}
    return json.dumps({"data": [bitcoin, tether], "timestamp": time.time_ns() // 10**6}).encode()


def euro_page() -> bytes:
    """The same page in euros, with a second stable coin."""
    page = json.loads(coincap_page())
    page["data"].append(page["data"][1] | {"id": "usd-coin", "priceUsd": "0.9205"})
    page["data"][1]["priceUsd"] = "0.9201"
    return json.dumps(page).encode()


def cryptocompare_page() -> bytes:
    """Two coins in one currency."""
    now_s = time.time_ns() // 10**9
    figures = {"TOSYMBOL": "USD", "LASTUPDATE": now_s, "CHANGEPCT24HOUR": -0.7023070132264649}
    return json.dumps(
        {
            "RAW": {
                "BTC": {"USD": figures | {"FROMSYMBOL": "BTC", "PRICE": 63551.02}},
                "USDT": {"USD": figures | {"FROMSYMBOL": "USDT", "PRICE": 0.9998}},
            },
            "DISPLAY": {},
        }
    ).encode()


def binance_page() -> bytes:
    """Two symbols."""
    now_ms = time.time_ns() // 10**6
    one = {"openTime": now_ms - 86_400_000, "closeTime": now_ms, "priceChangePercent": "-0.960", "count": 76}
    return json.dumps(
        [{"symbol": "BTCUSDT", "lastPrice": "64000.01"} | one, {"symbol": "ETHUSDT", "lastPrice": "3200.5"} | one]
    ).encode()


def limited() -> bytes:
    """CryptoCompare's word about too many calls; the second is full."""
    made, most = {"second": 20, "minute": 2}, {"second": 20, "minute": 300}
    return json.dumps(
        {
            "Response": "Error",
            "Message": "You are over your rate limit please upgrade your account!",
            "Type": 99,
            "RateLimit": {"calls_made": made, "max_calls": most},
            "Data": {},
        }
    ).encode()


@dataclass(frozen=True)
class Case:
    """One source: what it is asked, what it answers, and how that is counted."""

    source: str
    path: str
    key_header: tuple[str, str] | None
    channel: str
    page: Any
    error: tuple[bytes, str]
    units: int
    assets: tuple[str, str]


CASES = {
    case.source: case
    for case in (
        Case(
            "coincap",
            "/assets?limit=100&offset=0",
            ("authorization", f"Bearer {SECRET}"),
            "assets",
            coincap_page,
            (json.dumps({"error": f"key {SECRET} is unknown"}).encode(), "200_venue_error"),
            1,
            ("bitcoin", "tether"),
        ),
        Case(
            "cryptocompare",
            "/pricemultifull?fsyms=BTC%2CETH&tsyms=USD",
            ("authorization", f"Apikey {SECRET}"),
            "pricemultifull",
            cryptocompare_page,
            (b'{"Response":"Error","Message":"fsyms param is empty","Type":2}', "200_venue_error"),
            1,
            ("BTC", "USDT"),
        ),
        Case(
            "binance_prices",
            "/api/v3/ticker/24hr?symbols=%5B%22BTCUSDT%22%2C%22ETHUSDT%22%5D&type=FULL",
            None,
            "ticker_24hr",
            binance_page,
            (b'{"code":-1003,"msg":"Too many requests"}', "200_unexpected_shape"),
            2,
            ("BTCUSDT", "ETHUSDT"),
        ),
    )
}


@dataclass
class Stage:
    """A poller, its venue, and what Kafka holds of it since the beginning of the test."""

    settings: Settings
    source: str
    venue: PolledVenue
    process: Process
    before: int

    def answers(self) -> list[Stored]:
        found = stored(self.settings, "sim.crypto.prices.raw", SOURCES[self.source].venue)
        return [one for one in found if one.headers["channel"] != "bookTicker"][self.before :]

    def said(self) -> dict[str, float] | None:
        """What `marketflow sources` hears."""
        return sources.scrape(self.settings, SOURCES[self.source].service)

    def polls(self) -> Counter[str]:
        """What the metrics count; nothing while the producer does not listen yet."""
        port = getattr(self.settings, SOURCES[self.source].metrics_port_setting)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
        except urllib.error.URLError:
            return Counter()
        return Counter(
            {
                sample.labels["status"]: int(sample.value)
                for family in families
                for sample in family.samples
                if sample.name == "marketflow_polls_total"
            }
        )


@contextmanager
def stage(embedded: Settings, folder: Path, case: Case, script: list[Answer]) -> Iterator[Stage]:
    """A poller of the source against a venue that answers the script and then good pages."""
    source = SOURCES[case.source]
    (port,) = free_ports(1)
    settings = embedded.model_copy(update={source.metrics_port_setting: port})
    before = len(stored(settings, "sim.crypto.prices.raw", source.venue))
    with polled_venue(lambda: Answer(200, case.page(), {"X-MBX-USED-WEIGHT-1M": "17"}), script) as venue:
        env = environment(
            settings,
            **{
                source.metrics_port_setting: port,
                f"{source.places[0]}_url": venue.url,
                f"{source.name}_poll_interval_s": INTERVAL_S,
                "coincap_api_key": SECRET,
                "cryptocompare_api_key": SECRET,
                "cryptocompare_symbols": "BTC,ETH",
            },
        )
        with running("marketflow.ingest", source.name, log=folder / "producer", env=env) as process:
            yield Stage(settings, case.source, venue, process, before)


def bad_days(case: Case) -> dict[str, Answer]:
    """An answer of each kind, by what it is counted as."""
    nothing = {"coincap": b'{"data":[],"timestamp":1}', "binance_prices": b"[]", "cryptocompare": b'{"RAW":{}}'}
    error, error_label = case.error
    return {
        "200": Answer(200, case.page()),
        "200_empty_page": Answer(200, nothing[case.source]),
        error_label: Answer(200, error),
        "200_malformed": Answer(200, case.page()[:-3]),
        "429": Answer(429, b'{"error":"slow down"}', {"Retry-After": "1"}),
        "418": Answer(418, b"{}", {"Retry-After": "1"}),
        "503": Answer(503, b"", {"Retry-After": "1"}),
        "403": Answer(403, b"<html>"),
        "451": Answer(451, b'{"code":0,"msg":"Service unavailable from a restricted location"}'),
        "500": Answer(500, b"oops"),
        "half": Answer(HALF, case.page()),
    }


@pytest.mark.parametrize("name", CASES)
def test_every_answer_is_in_kafka_once_and_counted_and_told_for_what_it_is(
    embedded: Settings, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    script = bad_days(case)
    with stage(embedded, tmp_path, case, list(script.values())) as on:
        until(lambda: len(on.venue.asked) >= len(script) + 3 or on.process.child.poll() is not None, "good pages again")
        until(lambda: on.polls()["200"] >= 3, "they are counted")
        polls = on.polls()
        assert on.process.stop() == 0, on.process.output
    assert {label: polls[label] for label in script if label != "200"} == dict.fromkeys(set(script) - {"200"}, 1)
    found, asked = on.answers(), on.venue.asked
    whole = [one.answered for one in asked if isinstance(one.answered.status, int)]
    # one that was on its way when the poller was told to stop may be nowhere
    assert len(whole) - 1 <= len(found) <= len(whole)
    for record, answer in zip(found, whole, strict=False):
        assert (record.headers["http_status"], record.value) == (str(answer.status), answer.body)
    bad = [answer.status for label, answer in script.items() if label not in ("200", "half")]
    assert [event["http_status"] for event in on.process.events("answer")] == bad
    assert all(event["means"] for event in on.process.events("answer"))
    assert [event["what"] for event in on.process.events("no_answer")] == ["half"]
    for status in ("429", "418", "503"):
        at = next(at for at, one in enumerate(asked) if one.answered is script[status])
        assert asked[at + 1].at_s - asked[at].at_s >= 1.0, status


@pytest.mark.parametrize("name", CASES)
def test_what_is_asked_and_kept_names_all_but_the_key_and_every_call_is_counted(
    embedded: Settings, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    with connect(embedded, autocommit=True) as connection:
        connection.execute("delete from ops.quota_usage where source = %s", (name,))
    with stage(embedded, tmp_path, case, [Answer(200, case.error[0]), Answer(500, SECRET.encode())]) as on:
        until(lambda: on.polls()["200"] >= 2, "good pages")
        with connect(embedded) as connection:
            known = sources.facts(connection, SOURCES[name].service, None, on.said())
        assert on.process.stop() == 0, on.process.output
    for one in on.venue.asked:
        assert one.path == case.path
        assert case.key_header is None or one.headers[case.key_header[0]] == case.key_header[1]
        assert case.key_header is not None or "authorization" not in one.headers
    assert case.key_header is None or SECRET not in on.process.output
    found = on.answers()
    for record in found:
        assert SECRET not in json.dumps(record.headers)
        assert (record.headers["venue"], record.headers["channel"]) == (SOURCES[name].venue, case.channel)
        assert (record.headers["request"], record.headers["page"]) == (case.path, "1")
        assert record.headers["origin"] == "simulated"
    outcome = venues.parse(found[2].headers, found[2].value)
    assert isinstance(outcome, Parsed)
    assert tuple(item.asset_id for item in outcome.items if isinstance(item, AssetPrice)) == case.assets
    with connect(embedded) as connection:
        assert connection.execute(
            "select calls, calls_allowed from ops.quota_usage where source = %s", (name,)
        ).fetchall() == [(case.units * len(on.venue.asked), None)]
    assert known.failed_polls == 2
    assert (known.reconnects, known.queue_messages, known.lost_messages) == (None, None, None)
    assert known.minute_used == (17 if name == "binance_prices" else None)


def test_too_many_calls_told_with_status_200_make_cryptocompares_poller_wait(
    embedded: Settings, tmp_path: Path
) -> None:
    case = CASES["cryptocompare"]
    with stage(embedded, tmp_path, case, [Answer(200, limited())]) as on:
        until(lambda: len(on.venue.asked) >= 4, "the calls after it")
        assert on.process.stop() == 0, on.process.output
    gaps = [later.at_s - one.at_s for one, later in zip(on.venue.asked, on.venue.asked[1:], strict=False)]
    assert gaps[0] >= 1.0
    assert max(gaps[1:]) < 1.0
    (event,) = on.process.events("answer")
    assert (event["quiet_for_s"], event["http_status"]) == (1.0, 200)
    assert "over your rate limit" in event["says"]


def test_a_page_in_euros_is_kept_counted_and_told_and_gives_no_price(embedded: Settings, tmp_path: Path) -> None:
    with stage(embedded, tmp_path, CASES["coincap"], [Answer(200, euro_page())]) as on:
        until(lambda: len(on.venue.asked) >= 3, "pages in dollars after it")
        until(lambda: on.polls()["200_currency_suspect"] == 1, "it is counted")
        assert on.process.stop() == 0, on.process.output
    (event,) = on.process.events("answer")
    assert "tether is 0.9201 and usd-coin 0.9205, and no stable coin is near 1" in event["means"]
    first, second = on.answers()[:2]
    outcome = venues.parse(first.headers, first.value)
    assert isinstance(outcome, Parsed)
    assert not any(isinstance(item, AssetPrice) for item in outcome.items)
    assert b'"0.9997"' in second.value


def test_a_slow_body_is_given_up_and_a_cut_connection_does_no_harm(embedded: Settings, tmp_path: Path) -> None:
    case = CASES["coincap"]
    with stage(embedded, tmp_path, case, [Answer(SLOW, case.page()), Answer(CUT), Answer(CUT)]) as on:
        until(lambda: on.polls()["200"] >= 1, "a page after them")
        assert on.process.stop() == 0, on.process.output
    slow, *cut = on.process.events("no_answer")
    assert slow["what"] == "slow"
    assert [event["what"] for event in cut] in (["none"], ["none", "none"])  # the client may send one again by itself
    assert on.venue.asked[1].at_s - on.venue.asked[0].at_s == pytest.approx(20, abs=2)
    assert {record.headers["http_status"] for record in on.answers()} == {"200"}


@pytest.mark.parametrize("name", ["coincap", "cryptocompare"])
def test_a_live_plan_without_its_key_or_that_must_be_exceeded_is_refused_at_start(
    embedded: Settings, tmp_path: Path, name: str
) -> None:
    for change, says in (
        ({}, f"MARKETFLOW_{name.upper()}_API_KEY: plan "),
        ({f"{name}_api_key": SECRET}, "is 86,400 calls in 30 days, plan "),
    ):
        env = environment(embedded, dataset="live", **{f"{name}_poll_interval_s": 30, **change})
        log = tmp_path / f"{len(change)}"
        with running("marketflow.ingest", name, log=log, env=env) as process:
            assert process.child.wait(60) == 2
            assert says in process.output
            assert SECRET not in process.output
