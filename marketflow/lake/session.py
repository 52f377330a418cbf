"""The Spark session of every job, and how a contract's table is named in it.

The Iceberg JDBC catalog in Postgres is the truth on one machine; Glue's own catalog is on AWS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.paths import JARS_FOLDER, PROJECT_FOLDER
from marketflow.settings import Settings

CATALOG = "lake"
_LOGGING = Path(__file__).with_name("log4j2.properties")
_kept = False


def keep() -> None:
    """From now on this process's session outlives its jobs: `end` leaves it, and no cache shows a table as it was."""
    global _kept
    _kept = True


def end(session: SparkSession) -> None:
    """What a job does with its session when it is done."""
    if not _kept:
        session.stop()


def tidy() -> None:
    """Between two jobs of a kept session: what the one cached is nothing to the next."""
    session = SparkSession.getActiveSession()
    if session is not None:
        session.catalog.clearCache()


def table_name(settings: Settings, table: Table) -> str:
    """`lake.sim_silver.trades`."""
    return f"{CATALOG}.{settings.namespace(table.layer)}.{table.name}"


def catalog_options(settings: Settings) -> dict[str, str]:
    """Spark configuration of the Iceberg catalog, for this deployment."""
    prefix = f"spark.sql.catalog.{CATALOG}"
    options = {
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        f"{prefix}.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        f"{prefix}.warehouse": settings.warehouse,
        f"{prefix}.client.region": settings.aws_region,
    }
    if _kept:
        options[f"{prefix}.cache-enabled"] = "false"
    if settings.deployment == "aws":
        options[f"{prefix}.type"] = "glue"
        if settings.glue_endpoint:
            options[f"{prefix}.glue.endpoint"] = settings.glue_endpoint
        if settings.s3_endpoint:
            options |= {f"{prefix}.s3.endpoint": settings.s3_endpoint, f"{prefix}.s3.path-style-access": "true"}
        return options
    host = settings.postgres_host or settings.host
    return options | {
        f"{prefix}.type": "jdbc",
        f"{prefix}.uri": f"jdbc:postgresql://{host}:{settings.postgres_port}/iceberg_catalog",
        f"{prefix}.jdbc.user": "iceberg",
        f"{prefix}.jdbc.password": settings.secret("postgres_iceberg"),
        f"{prefix}.jdbc.schema-version": "V1",
        # the server is restarting: the same statement will do in a moment
        f"{prefix}.retryable_status_codes": "57P01,57P02,57P03",
        f"{prefix}.s3.endpoint": settings.s3_endpoint or "",
        f"{prefix}.s3.path-style-access": "true",
        f"{prefix}.s3.access-key-id": settings.secret("s3_access_key"),
        f"{prefix}.s3.secret-access-key": settings.secret("s3_secret_key"),
    }


def spark(settings: Settings, app_name: str) -> SparkSession:
    """A session on this deployment's lake. Embedded, the driver is this process's own JVM."""
    # workers must start this environment's python, and the JVM must not ask a proxy of AWS for checksums
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "WHEN_REQUIRED")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(PROJECT_FOLDER), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    )
    jars = str(Path(JARS_FOLDER) / "spark" / "*")
    temporary = settings.home / "run" / "spark"
    temporary.mkdir(parents=True, exist_ok=True)
    java_options = (f"-Dlog4j2.configurationFile=file:{_LOGGING}", *settings.spark_driver_java_options.split())
    options = {
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.host": settings.host,
        "spark.driver.bindAddress": settings.host,
        "spark.driver.extraClassPath": jars,
        "spark.executor.extraClassPath": jars,
        "spark.local.dir": str(temporary),
        "spark.sql.warehouse.dir": str(temporary / "warehouse"),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.defaultCatalog": CATALOG,
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # a task has one core: a worker's own threads would only stand in each other's way
        "spark.executorEnv.POLARS_MAX_THREADS": "1",
        # Polars' allocator gives memory back at once and faults it in again for the next column: a tenth of the time
        "spark.executorEnv._RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:-1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.extraJavaOptions": " ".join(java_options),
    }
    if settings.spark_master.startswith("local"):
        options["spark.python.daemon.module"] = "marketflow.lake.python_daemon"
    # the context's settings stand on the JVM's command line, where everybody on the machine can read them: the
    # catalog's, which hold passwords, are therefore given to the session alone
    SparkContext.getOrCreate(SparkConf().setAppName(app_name).setAll(list(options.items())))
    builder = SparkSession.builder.appName(app_name)
    for name, value in {**options, **catalog_options(settings)}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
