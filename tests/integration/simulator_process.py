"""A real simulator process for the tests that need one, and an independent reader of its sockets and files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

PRODUCTS = ("BTC-USD", "ETH-USD")
READY = re.compile(r"simulator ready: (?P<ws>ws://\S+) (?P<rest>http://\S+)")
SUBSCRIBE = {"type": "subscribe", "product_ids": list(PRODUCTS), "channels": ["matches", "ticker", "heartbeat"]}
Message = dict[str, Any]


@dataclass
class Simulator:
    process: subprocess.Popen[str]
    home: Path
    ws: str
    rest: str

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        return self._call(urllib.request.Request(self.rest + path, headers=headers or {}))

    def post(self, path: str, body: Message | None = None) -> tuple[int, Any, dict[str, str]]:
        return self._call(urllib.request.Request(self.rest + path, json.dumps(body or {}).encode(), method="POST"))

    def delete(self, path: str) -> tuple[int, Any, dict[str, str]]:
        return self._call(urllib.request.Request(self.rest + path, method="DELETE"))

    @staticmethod
    def _call(request: urllib.request.Request) -> tuple[int, Any, dict[str, str]]:
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, body, headers = answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            status, body, headers = error.code, error.read(), error.headers
        return status, json.loads(body, parse_float=Decimal), {k.lower(): v for k, v in headers.items()}

    def truth(self) -> dict[str, dict[int, Message]]:
        trades: dict[str, dict[int, Message]] = {}
        for line in whole_lines(self.home / "truth/trades.ndjson"):
            trade = json.loads(line)
            ids = trades.setdefault(trade["product_id"], {})
            assert trade["trade_id"] not in ids, f"{trade['product_id']} {trade['trade_id']} is there twice"
            ids[trade["trade_id"]] = trade
        return trades

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


def whole_lines(path: Path) -> list[str]:
    """A file that is being written may end within a line."""
    return path.read_text().rpartition("\n")[0].splitlines()


def environment(home: Path, **knobs: object) -> dict[str, str]:
    own_knobs = {"ws_port": 0, "rest_port": 0, "products": ",".join(PRODUCTS), **knobs}
    own = {f"MARKETFLOW_SIMULATOR_{name.upper()}": str(value) for name, value in own_knobs.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    return {**inherited, **own, "MARKETFLOW_HOME": str(home)}


def start(home: Path, **knobs: object) -> Simulator:
    process = subprocess.Popen(
        [sys.executable, "-m", "marketflow.simulator"],
        env=environment(home, **knobs),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    ready = READY.fullmatch(line.strip())
    assert ready, f"not a ready line: {line!r}, exit status {process.poll()}"
    return Simulator(process, home, ready["ws"], ready["rest"])


@contextmanager
def launcher(home: Path) -> Iterator[Callable[..., Simulator]]:
    """Starts fast simulators without the tape on one home; those that still run are killed at the end."""
    started: list[Simulator] = []

    def launch(**knobs: object) -> Simulator:
        started.append(
            start(home, **{"rate": 100, "tick_ms": 20, "tape": False, "products": ",".join(PRODUCTS), **knobs})
        )
        return started[-1]

    yield launch
    for running in started:
        if running.process.poll() is None:
            running.kill()


async def read(ws: str, until: Callable[[list[Message]], bool], subscribe: Message = SUBSCRIBE) -> list[Message]:
    """All messages of one connection, up to and with the one that makes `until` true. Broken JSON is kept as text."""
    messages: list[Message] = []
    async with asyncio.timeout(30), connect(ws, compression=None, max_size=2**24, max_queue=None) as socket:
        await socket.send(json.dumps(subscribe))
        while not until(messages):
            text = await socket.recv()
            try:
                messages.append(json.loads(text))
            except json.JSONDecodeError:
                messages.append({"type": "broken", "text": text})
    return messages


def count_of(message_type: str, wanted: int) -> Callable[[list[Message]], bool]:
    """True once that many have come; each message is looked at once, since thousands come."""
    looked_at = found = 0

    def enough(messages: list[Message]) -> bool:
        nonlocal looked_at, found
        found += sum(message.get("type") == message_type for message in messages[looked_at:])
        looked_at = len(messages)
        return found >= wanted

    return enough


def of_type(messages: list[Message], message_type: str) -> list[Message]:
    return [message for message in messages if message.get("type") == message_type]


def microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def assert_same_trade(match: Message, truth: Message) -> None:
    assert Decimal(match["price"]) == Decimal(truth["price"])
    assert Decimal(match["size"]) == Decimal(truth["size"])
    assert {match["side"], truth["taker_side"]} == {"buy", "sell"}, "a match tells the maker's side"
    assert microseconds(match["time"]) == truth["event_us"]


def assert_contiguous(truth: dict[str, dict[int, Message]]) -> None:
    assert set(truth) == set(PRODUCTS)
    for trades in truth.values():
        assert sorted(trades) == list(range(min(trades), max(trades) + 1))
        in_order = [trades[trade_id] for trade_id in sorted(trades)]
        for earlier, later in pairwise(in_order):
            assert earlier["sequence"] < later["sequence"]
            assert earlier["event_us"] <= later["event_us"] <= later["market_us"]


def price_truth(simulator: Simulator) -> dict[tuple[str, int], tuple[str, str]]:
    facts = [json.loads(line) for line in whole_lines(simulator.home / "truth/prices.ndjson")]
    assert {(fact["source"], fact["vs_currency"]) for fact in facts} == {("coingecko", "usd")}
    keyed = {(fact["asset_id"], fact["last_updated_us"]): (fact["price"], fact["market_cap"]) for fact in facts}
    assert len(keyed) == len(facts), "one line for each (asset, last_updated)"
    return keyed
