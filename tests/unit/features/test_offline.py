"""Files in, files out: the kernels' rows, in chunks that nobody sees; a file that does not fit is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketflow.errors import InputError, KernelError
from marketflow.features import frames, offline
from marketflow.features.prices import price_metrics
from marketflow.features.trades.kernel import trade_features

START = datetime(2026, 11, 21, 9, 59, tzinfo=UTC)


def trades(count: int, product_id: str = "BTC-USD", seed: int = 1) -> pl.DataFrame:
    """A tape of silver's columns with a hole, and sequences that quotes share."""
    chance = Random(seed)
    price, at, rows = 60_000_00, START, []
    for number in range(count):
        price += chance.randint(-300, 300)
        at += timedelta(microseconds=chance.randint(0, 90_000))
        trade_id = 1_000 + number + (5 if number > count // 2 else 0)
        size = Decimal(chance.randint(1, 10**9)).scaleb(-8)
        side = chance.choice(["buy", "sell"])
        rows.append(("coinbase_exchange", product_id, trade_id, Decimal(price).scaleb(-2), size, side, at, number * 10))
    columns = ["venue", "product_id", "trade_id", "price", "size", "taker_side", "event_ts", "sequence"]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.with_columns(pl.col("price", "size").cast(frames.MONEY), pl.col("event_ts").cast(frames.TIMESTAMP))


def quotes(of: pl.DataFrame) -> pl.DataFrame:
    """The book after each trade, a cent on either side."""
    cent = pl.lit(Decimal("0.01"), dtype=frames.MONEY)
    return of.select(
        "venue",
        "product_id",
        pl.col("sequence") + 1,
        "event_ts",
        best_bid=(pl.col("price") - cent).cast(frames.MONEY),
        best_bid_size=pl.col("size"),
        best_ask=(pl.col("price") + cent).cast(frames.MONEY),
        best_ask_size=pl.col("size"),
    )


@pytest.fixture(scope="module")
def tape() -> pl.DataFrame:
    return pl.concat([trades(2_600), trades(700, "ETH-USD", 2), trades(300, "SOL-USD", 3)])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file_gives_the_kernels_rows_in_any_order_and_any_chunk(
    tape: pl.DataFrame, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline.chunks, "__defaults__", (700,))
    given = {"trades": tape.sample(fraction=1, shuffle=True, seed=4), "quotes": quotes(tape).reverse()}
    for name, frame in given.items():
        (frame.write_csv if ending == "csv" else frame.write_parquet)(tmp_path / f"{name}.{ending}")
    said: list[str] = []
    report = offline.build_features(
        tmp_path / f"trades.{ending}", tmp_path / "out.parquet", tmp_path / f"quotes.{ending}", say=said.append
    )
    built = pl.read_parquet(tmp_path / "out.parquet").sort("product_id", "trade_id")
    whole = [
        trade_features(one, quotes(one)).filter(pl.col("history") >= 500)
        for one in tape.partition_by("product_id", maintain_order=True)
    ]
    assert_frame_equal(built, pl.concat(whole).sort("product_id", "trade_id"), rel_tol=1e-12, abs_tol=1e-15)
    assert report.rows == built.height == 2_100 + 200
    needed = "left out (500 trades before a row are needed)"
    assert sorted(said) == [
        f"coinbase_exchange BTC-USD: 2,600 trades, 2,100 rows, 2,100 of them with a quote, 500 {needed}",
        f"coinbase_exchange ETH-USD: 700 trades, 200 rows, 200 of them with a quote, 500 {needed}",
        f"coinbase_exchange SOL-USD: 300 trades, 0 rows, 0 of them with a quote, 300 {needed}",
    ]
    for one in report.products:
        assert one.rows + one.left_out == one.trades
    assert built["best_bid"].null_count() == 0
    assert built["gap_before"].sum() == 1


def test_the_warm_up_is_kept_on_demand_with_nulls(tape: pl.DataFrame, tmp_path: Path) -> None:
    tape.write_parquet(tmp_path / "trades.parquet")
    report = offline.build_features(tmp_path / "trades.parquet", tmp_path / "out.csv", keep_warmup=True)
    built = pl.read_csv(tmp_path / "out.csv")
    assert report.rows == built.height == tape.height
    first = built.filter(pl.col("history") == 0)
    assert first.height == 3
    assert first["ma_10_trades"].null_count() == 3
    assert built["best_bid"].null_count() == built.height, "no quotes were given"


def test_no_trades_are_an_empty_file_with_its_columns(tape: pl.DataFrame, tmp_path: Path) -> None:
    tape.clear().write_parquet(tmp_path / "trades.parquet")
    assert offline.build_features(tmp_path / "trades.parquet", tmp_path / "out.parquet").rows == 0
    assert pl.read_parquet(tmp_path / "out.parquet").schema == trade_features(tape.clear()).schema


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop("size"), "no column size; it needs venue, product_id, trade_id, price, size"),
        (
            lambda t: t.cast({"price": pl.Float64}),
            r"price is Float64, silver.trades has decimal\(38,18\): give",
        ),
        (
            lambda t: t.with_columns(pl.col("event_ts").dt.replace_time_zone(None)),
            "event_ts is Datetime.*a zone",
        ),
        (lambda t: t.with_columns(trade_id=pl.lit("a1")), "column trade_id is String, silver.trades has bigint"),
        (lambda t: t.with_columns(price=pl.lit("6e4x")), "column price: '6e4x' is no decimal"),
        (
            lambda t: t.with_columns(taker_side=pl.lit("BUY")),
            "side of trade 1000 is 'BUY': it must be buy or sell",
        ),
        (lambda t: pl.concat([t, t.head(1)]), "1000 occurs twice"),
        (lambda t: t.with_columns(size=pl.lit(Decimal(0), frames.MONEY)), "size of trade 1000 is 0: it must be above"),
        (
            lambda t: t.with_columns(size=pl.lit(Decimal(-1), frames.MONEY)),
            "size of trade 1000 is -1: it must be",
        ),
        (lambda t: t.with_columns(price=pl.lit(None, frames.MONEY)), "column price is empty in 300 of 300 rows"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_leaves_the_old_file(
    tmp_path: Path, change: object, says: str
) -> None:
    change(trades(300)).write_parquet(tmp_path / "trades.parquet")  # type: ignore[operator]
    (tmp_path / "out.parquet").write_text("what was there")
    with pytest.raises((InputError, KernelError), match=says):
        offline.build_features(tmp_path / "trades.parquet", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "trades.parquet"]


def test_a_name_is_a_name_and_no_pattern(tape: pl.DataFrame, tmp_path: Path) -> None:
    tape.with_columns(product_id=pl.lit("ETH-USD")).head(600).write_parquet(tmp_path / "tape1.parquet")
    own = trades(600)
    own.write_parquet(tmp_path / "tape[1].parquet")
    own.write_csv(tmp_path / "tape[2].csv")
    for name in ("tape[1].parquet", "tape[2].csv"):
        built = offline.build_features(tmp_path / name, tmp_path / "out.parquet")
        assert [(one.product_id, one.trades) for one in built.products] == [("BTC-USD", 600)]


def test_what_cannot_be_written_is_said_before_anything_is_read(tape: pl.DataFrame, tmp_path: Path) -> None:
    trades_file = tmp_path / "trades.parquet"
    tape.write_parquet(trades_file)
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").write_text("")
    before = trades_file.read_bytes()
    for out, says in (
        (trades_file, "is read too, and would be lost"),
        (tmp_path / "folder.parquet", "is a folder; name a file"),
        (tmp_path / "nowhere" / "out.parquet", "there is no folder"),
        (tmp_path / "file" / "out.parquet", "there is no folder"),
    ):
        with pytest.raises(InputError, match=says):
            offline.build_features(trades_file, out)
    assert trades_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.parquet", "trades.parquet"]
    # a name as long as names may be
    assert offline.build_features(trades_file, tmp_path / f"{'a' * 251}.csv").rows


@pytest.mark.parametrize("text", ["0.1234567890123456789", "1.5e-19", "0.0000000000000000004", "12345e-20"])
def test_a_digit_beyond_the_eighteenth_place_is_refused_and_not_rounded(tmp_path: Path, text: str) -> None:
    rows = trades(3)
    rows.with_columns(size=pl.lit(text)).write_csv(tmp_path / "trades.csv")
    with pytest.raises(InputError, match=r"column size: .* has digits beyond the 18th place \(3 such"):
        offline.build_features(tmp_path / "trades.csv", tmp_path / "out.parquet")
    # zeros behind it are no digits that are lost, and powers of ten are welcome
    for harmless in ("0.1000000000000000000000", "1.5e-7"):
        rows.with_columns(size=pl.lit(harmless)).write_csv(tmp_path / "trades.csv")
        assert offline.build_features(tmp_path / "trades.csv", tmp_path / "out.parquet").products[0].trades == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda q: q.with_columns(best_bid=pl.lit(Decimal(-5), frames.MONEY)), "a price that is not above zero"),
        (lambda q: q.with_columns(best_ask=pl.lit(Decimal(0), frames.MONEY)), "a price that is not above zero"),
        (lambda q: q.with_columns(best_bid_size=pl.lit(Decimal(-5), frames.MONEY)), "or a negative size"),
        (lambda q: q.with_columns(best_bid=pl.lit(None, frames.MONEY)), "column best_bid is empty in"),
        (lambda q: q.with_columns(event_ts=pl.lit(None, frames.TIMESTAMP)), "column event_ts is empty in"),
        (
            lambda q: pl.concat([q, q.head(1).with_columns(best_bid=pl.lit(Decimal(1), frames.MONEY))]),
            r"with sequence \d+ contradict each other \(1 such",
        ),
    ],
)
def test_a_quote_that_is_none_or_contradicts_another_is_refused(tmp_path: Path, change: object, says: str) -> None:
    trades(300).write_parquet(tmp_path / "trades.parquet")
    change(quotes(trades(300))).write_parquet(tmp_path / "quotes.parquet")  # type: ignore[operator]
    with pytest.raises(InputError, match=says):
        offline.build_features(
            tmp_path / "trades.parquet", tmp_path / "out.parquet", tmp_path / "quotes.parquet", keep_warmup=True
        )


def test_quotes_of_one_time_and_no_sequence_give_one_answer_in_any_order(tmp_path: Path) -> None:
    rows = trades(300)
    book = quotes(rows).with_columns(sequence=pl.lit(None, pl.Int64))
    other = book.with_columns(best_bid=pl.lit(Decimal(1), frames.MONEY))
    rows.write_parquet(tmp_path / "trades.parquet")
    made = []
    for number, both in enumerate((pl.concat([book, other]), pl.concat([other, book]).reverse())):
        both.write_parquet(tmp_path / f"quotes{number}.parquet")
        built = offline.build_features(
            *(tmp_path / "trades.parquet", tmp_path / "out.parquet", tmp_path / f"quotes{number}.parquet"),
            keep_warmup=True,
        )
        made.append(pl.read_parquet(tmp_path / "out.parquet"))
        assert built.products[0].quoted == made[-1]["best_bid"].count() > 0
        assert "of them with a quote" in str(built.products[0])
    assert made[0].equals(made[1])


def test_columns_that_may_be_missing_may_be_empty(tmp_path: Path) -> None:
    trades(300).with_columns(sequence=None).write_parquet(tmp_path / "trades.parquet")
    quotes(trades(300)).with_columns(best_bid_size=None, sequence=None).write_parquet(tmp_path / "quotes.parquet")
    offline.build_features(tmp_path / "trades.parquet", tmp_path / "out.parquet", tmp_path / "quotes.parquet")
    text = trades(300).cast({"sequence": pl.String}).with_columns(sequence=pl.lit(""))
    text.write_csv(tmp_path / "trades.csv", quote_style="always", datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
    assert offline.build_features(tmp_path / "trades.csv", tmp_path / "out.parquet").products[0].trades == 300


def test_an_observation_without_its_key_is_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "source": ["coingecko"] * 2,
            "asset_id": ["bitcoin", None],
            "vs_currency": ["usd"] * 2,
            "last_updated": ["2026-11-21T10:00:00Z", "2026-11-21T10:01:00Z"],
            "price": ["1", "2"],
        }
    )
    rows.write_csv(tmp_path / "prices.csv")
    with pytest.raises(InputError, match="column asset_id is empty in 1 of 2 rows"):
        offline.build_metrics(tmp_path / "prices.csv", tmp_path / "out.csv")
    rows.with_columns(asset_id=pl.lit("bitcoin"), last_updated=None).write_csv(tmp_path / "prices.csv")
    with pytest.raises(InputError, match="column last_updated is empty in 2 of 2 rows"):
        offline.build_metrics(tmp_path / "prices.csv", tmp_path / "out.csv")


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "trades.parquet").write_text("not parquet")
    for name, says in (
        ("trades.parquet", "cannot be read"),
        ("nothing.csv", "no such file"),
        ("trades.xlsx", "must end with .parquet or .csv"),
    ):
        with pytest.raises(InputError, match=says):
            offline.build_features(tmp_path / name, tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21T10:00:00.123456Z", "2026-11-21 10:00:00.123456+00:00"),
        ("2026-11-21 10:00:00", "2026-11-21 10:00:00+00:00"),
        ("2026-11-21T12:00:00.5+02:00", "2026-11-21 10:00:00.500000+00:00"),
        ("2026-11-21T10:00:00+00", "2026-11-21 10:00:00+00:00"),
    ],
)
def test_times_in_text_are_utc_where_they_name_no_zone(tmp_path: Path, text: str, moment: str) -> None:
    prices(3).with_columns(last_updated=pl.Series([text, "2026-11-21T10:01:00Z", "2026-11-21T10:02:00Z"])).write_csv(
        tmp_path / "prices.csv"
    )
    offline.build_metrics(tmp_path / "prices.csv", tmp_path / "out.parquet")
    assert str(pl.read_parquet(tmp_path / "out.parquet")["ts"][0]) == moment


def prices(count: int) -> pl.DataFrame:
    """One coin's price every half minute."""
    chance = Random(5)
    return pl.DataFrame(
        {
            "source": "coingecko",
            "asset_id": "bitcoin",
            "vs_currency": "usd",
            "last_updated": [START + timedelta(seconds=30 * i) for i in range(count)],
            "price": [str(60_000 + chance.randint(-50, 50)) for _ in range(count)],
        }
    )


def test_metrics_of_a_file_are_the_kernels(tmp_path: Path) -> None:
    prices(100).write_csv(tmp_path / "prices.csv")
    report = offline.build_metrics(tmp_path / "prices.csv", tmp_path / "out.parquet")
    absent = {"symbol": pl.String(), "name": pl.String(), "market_cap": frames.MONEY, "volume_24h": frames.MONEY}
    absent |= {"market_cap_rank": pl.Int32(), "polled_at": frames.TIMESTAMP}
    whole = prices(100).with_columns(
        pl.col("price").cast(frames.MONEY),
        pl.col("last_updated").cast(frames.TIMESTAMP),
        *(pl.lit(None, dtype).alias(name) for name, dtype in absent.items()),
    )
    assert report.rows == 100
    assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), price_metrics(whole))


def test_the_commands_print_what_they_did_and_a_wrong_file_ends_with_status_2(tmp_path: Path) -> None:
    trades(600).write_parquet(tmp_path / "trades.parquet")
    arguments = ["features", "build", "--trades", "trades.parquet", "--out", "out.parquet"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "marketflow.cli", *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["products"][0]["left_out"] == 500
    wrong = run(*arguments[:3], "nothing.parquet", *arguments[4:])
    assert (wrong.returncode, wrong.stderr) == (2, "marketflow: nothing.parquet: no such file\n")
    listed = run("features", "list", "--json")
    assert len(json.loads(listed.stdout)) >= 96
    assert run("features", "list", "--group", "nonsense").returncode == 2
