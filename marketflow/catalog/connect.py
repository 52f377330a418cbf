"""Ready lines that open this stack's data in other tools."""

from __future__ import annotations

from urllib.parse import urlsplit

from marketflow.settings import Settings

_TEXT = """\
Read-only user marketflow_reader; {password_note}

psql
  psql "postgresql://marketflow_reader:{password}@{host}:{port}/{database}"
  select * from mart.top_5_gainers;

pandas (pip install sqlalchemy psycopg)
  pandas.read_sql("select * from mart.enriched_prices limit 100",
                  "postgresql+psycopg://marketflow_reader:{password}@{host}:{port}/{database}")

Polars (pip install polars pyarrow adbc-driver-postgresql)
  polars.read_database_uri("select * from mart.bars",
                           "postgresql://marketflow_reader:{password}@{host}:{port}/{database}", engine="adbc")

Python, the lake as Arrow, Polars or pandas (in this project's .venv)
  from marketflow import settings
  from marketflow.lake import readers
  trades = readers.load(settings.load(), "silver.trades")          # pyarrow.Table

DuckDB on the lake (in this project's .venv; read-only)
  from marketflow import settings
  from marketflow.lake import readers
  connection = readers.duckdb(settings.load())
  connection.sql("select * from gold.bars order by open_ts desc limit 5").pl()

Plain exports (`marketflow export features`; docs/crawl.md), here with PyArrow; whoever has these keys may also write
  from pyarrow import dataset, fs
  store = fs.S3FileSystem({store})
  features = dataset.dataset("{bucket}/{exports}/features", filesystem=store, partitioning="hive")
  features.to_table()

A BI tool (Metabase, Superset, Grafana, Tableau): a PostgreSQL source
  host {host} · port {port} · database {database} · user marketflow_reader · schema mart
"""


def lines(settings: Settings, *, show_passwords: bool = False) -> str:
    """Lines for psql, pandas, Polars, DuckDB, the plain exports and a BI tool; secrets only when asked for."""
    secret_file = settings.home / "secrets.json"
    shown = settings.secret("postgres_marketflow_reader")
    note = "this screen shows its password" if show_passwords else f"its password: {secret_file} (--show-passwords)"
    return _TEXT.format(
        store=_store(settings, show_passwords=show_passwords),
        bucket=settings.lake_bucket,
        exports=settings.export_prefix,
        password=shown if show_passwords else "PASSWORD",
        password_note=note,
        host=settings.postgres_host or settings.host,
        port=settings.postgres_port,
        database=settings.postgres_database,
    ).rstrip()


def _store(settings: Settings, *, show_passwords: bool) -> str:
    """The arguments that PyArrow needs to reach the bucket; on AWS the machine's own identity."""
    if settings.s3_endpoint is None:
        return f'region="{settings.aws_region}"'
    address = urlsplit(str(settings.s3_endpoint))
    keys = (
        [settings.secret(name) for name in ("s3_access_key", "s3_secret_key")] if show_passwords else ["KEY", "SECRET"]
    )
    place = f'endpoint_override="{address.netloc}", scheme="{address.scheme}"'
    return f'access_key="{keys[0]}", secret_key="{keys[1]}", {place}'
