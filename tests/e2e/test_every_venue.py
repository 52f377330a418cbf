"""Every venue's feed and poller at once, with everything going wrong that can: what `verify` says afterwards."""

from __future__ import annotations

import pytest

from benchmarks.venues_hour import FAULTS, hour

SEED = 7


@pytest.mark.timeout(1500)
def test_no_fault_of_any_venue_loses_doubles_or_alters_a_trade() -> None:
    # three minutes of trading at the usual three a second, in half a minute; benchmarks/venues_hour.py plays an hour
    run = hour(SEED, trades=540, rate=18.0)
    assert run["clean"], run["problems"]
    assert run["producers_that_ended"] == {}
    assert (run["missing"], run["duplicate"], run["differing"]) == (0, 0, 0)
    # four products, two of them on two doors
    assert run["trades_compared"] > 6 * 500
    done = run["faults_done"]
    for venue in ("coinbase_exchange", "coinbase_advanced", "binance"):
        assert sum(count for name, count in done.items() if name.startswith(f"{venue}:")) > 20, venue
        assert run["ledger"][f"{venue} healed"]["trades"] > 0, venue
    kinds = {name.partition(":")[2] for name in done}
    assert len(kinds & {name.rpartition(":")[2] for name in FAULTS}) > 15
    given_up = sum(row["trades"] for name, row in run["ledger"].items() if name.endswith("unrecoverable"))
    assert run["vanished_trades"] > 0
    assert given_up > 0, "what nobody will ever tell is said to be lost; that it is all of them, verify says"
    assert not any(name.endswith("open") for name in run["ledger"])
