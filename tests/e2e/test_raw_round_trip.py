"""The raw export of everything that was recorded, replayed into an emptied dataset, makes the same rows again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marketflow.catalog.export_raw import export_raw
from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.columns import Table
from marketflow.contracts.silver import SILVER_TABLES
from marketflow.contracts.topics import TOPICS
from marketflow.lake import readers
from marketflow.settings import Settings, load
from marketflow.stack import replay, replay_source, s3

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
# where a record lies in Kafka and when it came there is the replay's own
OWN = {"topic", "partition", "offset", "kafka_timestamp", "ingested_at", "rejected_at"}


def rows(settings: Settings, table: Table) -> list[str]:
    """Every row without what is the replay's own, in an order of its own content."""
    found = readers.load(settings, table).to_pylist()
    return sorted(repr({name: value for name, value in row.items() if name not in OWN}) for row in found)


@pytest.mark.timeout(1500)
def test_a_replay_of_the_raw_export_restores_every_row_of_bronze_and_silver(servers: Settings) -> None:
    settings = load(home=servers.home, dataset="replay")
    said: list[str] = []
    options: dict[str, Any] = {"vs_currency": "usd"}
    files = [CAPTURES / "coinbase", CAPTURES / "coingecko", CAPTURES / "binance"]
    replay.run_on_servers(settings, files, fresh=True, say=said.append, **options)
    client = s3.client(settings)
    reports = [export_raw(settings, client, topic) for topic in TOPICS]
    tables = [*BRONZE_TABLES, *SILVER_TABLES]
    before = {table.qualified: rows(settings, table) for table in tables}
    assert len(before["bronze.trades_raw"]) == reports[0].rows > 2_000
    assert min(len(before[f"silver.{name}"]) for name in ("trades", "quotes", "asset_prices", "rejected")) > 0

    # emptied: what comes back comes from the export alone
    with replay_source.local(settings, ["s3://lake/replay/export/raw/"]) as paths:
        accounting = replay.run_on_servers(settings, paths, fresh=True, say=said.append)

    assert accounting.balanced, accounting.problems
    same = {name: rows(settings, table) == before[name] for table in tables for name in [table.qualified]}
    assert same == dict.fromkeys(before, True)
