"""The lake as it is on AWS, read without Spark: its catalog is Glue, and keys come from the machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import aws_stage
import boto3
import duckdb
import pyarrow as pa
import pytest
from lake_rows import NOON, rows

from marketflow.contracts.columns import Table
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ConfigurationError, LakeStateError
from marketflow.lake import readers
from marketflow.settings import Settings, load

OLDER = rows(TRADES, 10, event_ts=[NOON + timedelta(minutes=n) for n in range(10)], product_id=["BTC-USD"] * 10)
NEWER = rows(TRADES, 5, 1, event_ts=[NOON + timedelta(days=1)] * 5, product_id=["ETH-USD"] * 5)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Every table of the contract in moto's Glue and S3; trades in two commits, no row in any other."""
    with pytest.MonkeyPatch.context() as patch, aws_stage.moto_server() as address:
        for name, value in aws_stage.variables(address).items():
            patch.setenv(name, value)
        settings = load(home=tmp_path_factory.mktemp("home"))
        commits: dict[Table, list[pa.Table]] = {table: [] for table in LAKE_TABLES}
        aws_stage.write(settings, commits | {TRADES: [OLDER, NEWER]})
        yield settings


def in_order(table: pa.Table) -> list[tuple[object, ...]]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def test_glue_says_where_every_table_of_the_contract_is_and_names_no_other(written: Settings) -> None:
    client = boto3.client("glue", endpoint_url=written.glue_endpoint, region_name=written.aws_region)
    client.create_table(DatabaseName="sim_gold", TableInput={"Name": "of_somebody", "Parameters": {}})
    client.create_database(DatabaseInput={"Name": "sim_scratch"})
    found = readers.locations(written)
    assert set(found) == {(written.namespace(table.layer), table.name) for table in LAKE_TABLES}
    told = client.get_table(DatabaseName="sim_silver", Name="trades")["Table"]["Parameters"]["metadata_location"]
    assert readers.metadata_location(written, TRADES) == told


def test_pyiceberg_reads_rows_and_snapshots(written: Settings) -> None:
    assert in_order(readers.load(written, TRADES)) == in_order(pa.concat_tables([OLDER, NEWER]))
    newest, oldest = readers.snapshots(written, TRADES)
    assert newest.parent_id == oldest.snapshot_id
    assert in_order(readers.load(written, TRADES, snapshot_id=oldest.snapshot_id)) == in_order(OLDER)
    assert {one.partition[0] for one in readers.data_files(written, TRADES, ())} == {"BTC-USD", "ETH-USD"}
    assert readers.snapshots(written, QUOTES) == []


def test_duckdb_reads_every_table_with_the_machines_keys(written: Settings) -> None:
    with readers.duckdb(written) as connection:
        for table in LAKE_TABLES:
            described = connection.execute(f"describe {table.qualified}").fetchall()
            assert tuple(row[0] for row in described) == table.column_names
        read = connection.execute("select * from silver.trades").to_arrow_table()
        assert connection.execute("select count(*) from gold.bars").fetchone() == (0,)
        for statement in (
            "select * from read_text('s3://another-bucket/key')",
            "copy (select 1) to '/tmp/out.csv'",
        ):
            with pytest.raises(duckdb.PermissionException):
                connection.execute(statement)
    assert in_order(read) == in_order(pa.concat_tables([OLDER, NEWER]))


def test_without_endpoints_and_with_a_roles_keys_duckdb_is_told_of_aws_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in aws_stage.variables(""):  # of the module's other tests
        monkeypatch.delenv(name, raising=False)
    for name, value in aws_stage.KEYS.items():
        monkeypatch.setenv(name, value)
    with readers.duckdb_on_files(load(home=tmp_path, deployment="aws", aws_region="eu-west-1")) as connection:
        ((told,),) = connection.execute("select secret_string from duckdb_secrets()").fetchall()
    said = dict(part.partition("=")[::2] for part in told.split(";"))
    assert (said["region"], said["key_id"], said["session_token"]) == ("eu-west-1", "any", "redacted")
    assert not said.get("endpoint"), told
    assert "any" not in said["secret"]


def test_a_machine_without_a_role_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.Session.get_credentials", lambda self: None)
    with pytest.raises(ConfigurationError, match="no role or keys of AWS"):
        readers.duckdb_on_files(load(home=tmp_path, deployment="aws"))


def test_a_dataset_that_has_no_database_in_glue_has_no_tables(written: Settings) -> None:
    other = written.model_copy(update={"dataset": "live"})
    assert readers.locations(other) == {}
    with pytest.raises(LakeStateError, match=r"silver\.trades of dataset live is not in the catalog"):
        readers.metadata_location(other, TRADES)
