"""The truth file: whole lines only, one writer, a history that equals it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketflow.errors import BusyError, MarketflowError
from marketflow.simulator import configuration, history
from marketflow.simulator.simulation import Simulation
from marketflow.simulator.truth import TruthFile

START_US = 1_785_542_400_000_000
HOUR_US = 3_600_000_000


def simulation(folder: Path, now_us: int = START_US, **knobs: object) -> Simulation:
    knobs = {"rate": 20.0, "tape": False, **knobs}
    made = Simulation(
        configuration.load(**knobs),
        products=("BTC-USD", "ETH-USD"),
        currencies=("usd",),
        truth_folder=folder,
        now_us=now_us,
    )
    made.start(now_us)
    return made


def run(folder: Path, now_us: int, seconds: int, **knobs: object) -> Simulation:
    made = simulation(folder, now_us, **knobs)
    for step in range(seconds * 10):
        moment_us = now_us + step * 100_000
        batch = made.step(moment_us, moment_us)
        made.truth.sync()
        made.publish(batch)
    return made


def lines(folder: Path, name: str = "trades") -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{name}.ndjson").read_text().splitlines()]


def ids(folder: Path, product: str) -> list[int]:
    return [int(str(trade["trade_id"])) for trade in lines(folder) if trade["product_id"] == product]


TORN_LINES = (b'{"venue":"coinbase_exchange","product_id":"BTC-U', b"{", b'{"a":1}', b"x" * 3_000_000)


@pytest.mark.parametrize("torn", TORN_LINES, ids=("field", "brace", "object", "long"))
def test_a_torn_last_line_is_cut_and_the_market_goes_on_at_the_next_id(tmp_path: Path, torn: bytes) -> None:
    run(tmp_path, START_US, 10).truth.close()
    before = (tmp_path / "trades.ndjson").read_bytes()
    with (tmp_path / "trades.ndjson").open("ab") as file:
        file.write(torn)
    run(tmp_path, START_US + HOUR_US, 10).truth.close()
    after = (tmp_path / "trades.ndjson").read_bytes()
    assert after.startswith(before)
    for product in ("BTC-USD", "ETH-USD"):
        numbers = ids(tmp_path, product)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 300


def test_a_file_of_nothing_but_a_torn_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "trades.ndjson"
    path.write_bytes(b'{"venue":"coin')
    file = TruthFile(path)
    assert (file.written_bytes, path.read_bytes()) == (0, b"")
    file.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = TruthFile(tmp_path / "trades.ndjson")
    with pytest.raises(BusyError, match="another simulator"):
        TruthFile(tmp_path / "trades.ndjson")
    first.close()


def test_a_hole_in_the_truth_stops_the_start(tmp_path: Path) -> None:
    run(tmp_path, START_US, 10).truth.close()
    path = tmp_path / "trades.ndjson"
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:50] + kept[51:]))
    with pytest.raises(MarketflowError, match="should be"):
        simulation(tmp_path)


def test_nothing_is_visible_before_its_truth_is_synced(tmp_path: Path) -> None:
    made = simulation(tmp_path)
    batch = made.step(START_US + 5_000_000, START_US + 5_000_000)
    assert len(batch.trades) > 50
    assert made.history.page("BTC-USD", limit=1000, after=None, before=None) == []
    assert made.assets.published == {}
    assert made.truth.trades.synced_bytes == 0
    made.truth.sync()
    made.publish(batch)
    page = made.history.page("BTC-USD", limit=1000, after=None, before=None)
    assert [trade.trade_id for trade in page[::-1]] == ids(tmp_path, "BTC-USD")


def test_history_is_the_truth_even_where_only_its_tail_was_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, START_US, 60).truth.close()
    monkeypatch.setattr(history, "FIRST_SCAN_BYTES", 20_000)
    monkeypatch.setattr(history, "TRADES_WANTED", 200)
    made = simulation(tmp_path, START_US + HOUR_US)
    for product in ("BTC-USD", "ETH-USD"):
        numbers = ids(tmp_path, product)
        page = made.history.page(product, limit=150, after=numbers[-10], before=None)
        assert [trade.trade_id for trade in page] == numbers[-11:-161:-1]
        assert made.market.products[product].next_trade_id == numbers[-1] + 1
    assert made.history.products["BTC-USD"].first_trade_id > ids(tmp_path, "BTC-USD")[0]


def test_a_product_that_was_not_traded_for_long_still_goes_on_at_its_next_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, START_US, 5).truth.close()
    last = ids(tmp_path, "ETH-USD")[-1]
    path = tmp_path / "trades.ndjson"
    others = [line for line in path.read_bytes().splitlines(keepends=True) if b"BTC-USD" in line]
    next_id = ids(tmp_path, "BTC-USD")[-1] + 1
    more = b"".join(
        others[0].replace(str(ids(tmp_path, "BTC-USD")[0]).encode(), str(next_id + number).encode())
        for number in range(500)
    )
    with path.open("ab") as file:
        file.write(more)
    monkeypatch.setattr(history, "FIRST_SCAN_BYTES", 5_000)
    assert simulation(tmp_path, START_US + HOUR_US).market.products["ETH-USD"].next_trade_id == last + 1


def test_the_rolling_day_survives_a_restart(tmp_path: Path) -> None:
    first = run(tmp_path, START_US, 30)
    first.truth.close()
    second = run(tmp_path, START_US + 60_000_000, 5)
    trades = [trade for trade in lines(tmp_path) if trade["product_id"] == "BTC-USD"]
    newest = second.step(START_US + 70_000_000, START_US + 70_000_000).trades
    day = next(trade.day for trade in newest if trade.listing.product_id == "BTC-USD")
    assert day.open == round(float(str(trades[0]["price"])) * 100)
    assert day.volume > sum(round(float(str(trade["size"])) * 1e8) for trade in trades) - len(trades)


def test_prices_in_the_truth_are_one_line_per_asset_and_moment(tmp_path: Path) -> None:
    run(tmp_path, START_US, 60).truth.close()
    run(tmp_path, START_US + HOUR_US, 60).truth.close()
    facts = lines(tmp_path, "prices")
    keys = [(fact["asset_id"], fact["last_updated_us"]) for fact in facts]
    assert len(keys) == len(set(keys)) > 1000
    bitcoin = [int(str(fact["last_updated_us"])) for fact in facts if fact["asset_id"] == "bitcoin"]
    assert bitcoin == sorted(bitcoin)


def test_a_vanished_trade_is_in_the_truth_and_on_no_page_of_this_process_or_the_next(tmp_path: Path) -> None:
    made = run(tmp_path, START_US, 10)
    newest = ids(tmp_path, "BTC-USD")[-1]
    vanished = {newest, newest - 1, newest - 7}
    other = ids(tmp_path, "ETH-USD")
    for trade_id in vanished:
        made.history.forget("BTC-USD", trade_id, venue="coinbase_advanced")
    whole = [trade_id for trade_id in reversed(ids(tmp_path, "BTC-USD")) if trade_id not in vanished]
    for again in range(2):
        page = made.history.page("BTC-USD", limit=10, after=None, before=None)
        assert [trade.trade_id for trade in page] == whole[:10], "a page is full though trades vanished"
        page = made.history.page("BTC-USD", limit=1000, after=newest - 5, before=newest - 9)
        assert [trade.trade_id for trade in page] == [newest - 6, newest - 8]
        assert made.history.page("BTC-USD", limit=5, after=None, before=newest - 2) == []
        assert [trade.trade_id for trade in made.history.recent("BTC-USD", 3)] == whole[2::-1]
        [last] = made.history.recent("ETH-USD", 1)
        assert last.trade_id == other[-1]
        assert not made.history.is_forgotten(last)
        made.truth.close()
        if not again:
            made = simulation(tmp_path, START_US + HOUR_US)
    assert ids(tmp_path, "BTC-USD")[-1] == newest
    assert lines(tmp_path, "vanished") == [
        {"venue": "coinbase_advanced", "product_id": "BTC-USD", "trade_id": trade_id} for trade_id in vanished
    ]


def test_a_restart_goes_on_after_a_last_trade_that_vanished(tmp_path: Path) -> None:
    made = run(tmp_path, START_US, 5)
    last = ids(tmp_path, "BTC-USD")[-1]
    made.history.forget("BTC-USD", last, venue="coinbase_exchange")
    made.truth.close()
    run(tmp_path, START_US + HOUR_US, 5).truth.close()
    numbers = ids(tmp_path, "BTC-USD")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[-1] > last
