"""What Dag crawl_catalog does, through the Amazon provider's hooks: S3, Glue, and on AWS Athena and Glue's crawler."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.form import refuse_unknown

if TYPE_CHECKING:
    from marketflow.settings import Settings

CONNECTION_ID = "lake_aws"
_log = logging.getLogger(__name__)


def export_features(context: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Bring features/ up to date.

    Raises:
        AirflowFailException: the form has a key too many.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from marketflow import settings
    from marketflow.catalog.export import export
    from marketflow.catalog.layouts import FEATURES

    refuse_unknown(context, known)
    report = export(settings.load(), S3Hook(aws_conn_id=CONNECTION_ID).get_conn(), FEATURES)
    _log.info("%s", report)
    return report.as_dict()


def is_there(name: str) -> bool:
    """Whether Glue has a crawler of this name."""
    from airflow.providers.amazon.aws.hooks.glue_crawler import GlueCrawlerHook

    return bool(GlueCrawlerHook(aws_conn_id=CONNECTION_ID).has_crawler(name))


def crawler(configuration: Settings) -> dict[str, Any]:
    """AWS Glue's crawler over the plain exports, as its API takes it. Iceberg's tables are in Glue by their commits."""
    from marketflow.catalog.layouts import LAYOUTS, database

    bucket = configuration.lake_bucket
    targets = [{"Path": f"s3://{bucket}/{layout.prefix(configuration)}", "Exclusions": ["_*"]} for layout in LAYOUTS]
    return {
        "Name": f"marketflow-{configuration.dataset}-export",
        "Description": "marketflow: the plain exports; Dag crawl_catalog runs it",
        "Role": configuration.glue_crawler_role,
        "DatabaseName": database(configuration),
        "Targets": {"S3Targets": targets},
        "SchemaChangePolicy": {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "DELETE_FROM_DATABASE"},
        # what vanished is seen only by one that looks at everything
        "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_EVERYTHING"},
        "Configuration": json.dumps(
            {"Version": 1.0, "CrawlerOutput": {"Partitions": {"AddOrUpdateBehavior": "InheritFromTable"}}}
        ),
    }


def publish(context: Mapping[str, Any]) -> dict[str, Any]:
    """Our own crawl; `anew` of the form looks at everything."""
    from airflow.providers.amazon.aws.hooks.glue_catalog import GlueCatalogHook
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from marketflow import settings
    from marketflow.catalog.crawl import crawl

    s3, glue = S3Hook(aws_conn_id=CONNECTION_ID).get_conn(), GlueCatalogHook(aws_conn_id=CONNECTION_ID).get_conn()
    report = crawl(settings.load(), s3, glue, anew=context["params"]["anew"])
    _log.info("%s", report)
    return report.as_dict()


def prove() -> list[dict[str, Any]]:
    """One query per table, by DuckDB on one machine and by Athena on AWS."""
    from airflow.providers.amazon.aws.hooks.glue_catalog import GlueCatalogHook

    from marketflow import settings
    from marketflow.catalog.prove import prove as read_every_table

    configuration = settings.load()
    glue = GlueCatalogHook(aws_conn_id=CONNECTION_ID).get_conn()
    ask = Athena(configuration.athena_workgroup) if configuration.deployment == "aws" else None
    proofs = read_every_table(configuration, glue, ask)
    for one in proofs:
        _log.info("%s", one)
    return [one.as_dict() for one in proofs]


class Athena:
    """Asks one statement and waits for its rows; the workgroup says where results go."""

    def __init__(self, workgroup: str) -> None:
        """`workgroup` is its name."""
        from airflow.providers.amazon.aws.hooks.athena import AthenaHook

        self._hook, self._workgroup = AthenaHook(aws_conn_id=CONNECTION_ID), workgroup

    def __call__(self, database: str, statement: str) -> Sequence[Sequence[str | None]]:
        """The rows as text, the header first.

        Raises:
            AirflowFailException: the query failed; with Athena's reason.
        """
        query = self._hook.run_query(statement, {"Database": database}, {}, workgroup=self._workgroup)
        state = self._hook.poll_query_status(query, sleep_time=2)
        if state != "SUCCEEDED":
            reason = self._hook.get_state_change_reason(query)
            raise AirflowFailException(f"Athena: {state}: {reason} ({statement})")
        answer = self._hook.get_query_results(query) or {}
        rows = answer.get("ResultSet", {}).get("Rows", [])
        return [[cell.get("VarCharValue") for cell in row["Data"]] for row in rows]
