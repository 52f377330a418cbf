"""# crawl_catalog

Tells the Glue Data Catalog what is in the lake, so that tools find its tables there, and proves that each one reads.
First it brings features/ up to date: gold.trade_features as plain Parquet, for tools that read no Iceberg.

**Reads** gold.trade_features, the lake's catalog, the bucket's exports · **Writes** the bucket under
`<dataset>/export/features` and `<dataset>/catalog`, the Glue Data Catalog · **Schedule** hourly, at 40 minutes past:
the hour's gold is written by then

**By hand** *Trigger* with *Anew* looks at every file and compares every partition, changed or not. `marketflow crawl`
and `marketflow export features` are the same on a command line. docs/crawl.md tells of layouts, types and limits.
**Rerun** safe: everything is looked at before the first word is written; what did not change is not written.
**Backfill** makes no sense here: it publishes what there is. An hour of gold that a backfill wrote is exported by the
next run.
**When it fails** `publish` names column and file of a conflict, and nothing was published: write the file again, or
delete it. `prove` names the tables that do not read, and why; with *Anew* the next run mends a catalog that somebody
changed by hand. Glue's own API forgets everything when it is started anew; the next run publishes it again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.glue_crawler import (
    GlueCrawlerCreateOperator,
    GlueCrawlerRunOperator,
    GlueCrawlerUpdateOperator,
)
from airflow.sdk import CronTriggerTimetable, Param, dag, task
from assets import BRONZE, CATALOG, GOLD, SILVER

from marketflow_airflow.catalog import CONNECTION_ID
from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out

PARAMS = {
    "anew": Param(False, type="boolean", title="Anew", description="Look at every file and partition, changed or not.")
}


@dag(
    schedule=CronTriggerTimetable("40 * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    # a server that restarts, or a file that is written just now; a conflict of types stays one
    default_args=DEFAULT_ARGS | {"retries": 2},
    tags=[Tag.CATALOG, Tag.GOLD],
)
def crawl_catalog():
    @task
    def export_features(**context: Any) -> dict[str, Any]:
        from marketflow_airflow import catalog

        return catalog.export_features(context, list(PARAMS))

    @task.branch
    def choose() -> str:
        from marketflow import settings

        return "publish" if settings.load().crawler == "own" else "describe_crawler"

    @task
    def publish(**context: Any) -> dict[str, Any]:
        from marketflow_airflow import catalog

        return catalog.publish(context)

    @task
    def describe_crawler() -> dict[str, Any]:
        from marketflow import settings
        from marketflow_airflow import catalog

        return catalog.crawler(settings.load())

    @task.branch
    def find_crawler(name: str) -> str:
        from marketflow_airflow import catalog

        return "update_crawler" if catalog.is_there(name) else "create_crawler"

    # our own crawl or AWS Glue's came before, and the other was left out
    @task(
        inlets=[*BRONZE.values(), *SILVER.values(), *GOLD.values()],
        outlets=[CATALOG],
        trigger_rule="none_failed_min_one_success",
    )
    def prove(*, outlet_events: Any = None) -> list[dict[str, Any]]:
        from marketflow_airflow import catalog

        proofs = catalog.prove()
        outlet_events[CATALOG].extra = {"tables": {one["table"]: one["rows"] for one in proofs}}
        return proofs

    way, description, proven = choose(), describe_crawler(), prove()
    create_crawler = GlueCrawlerCreateOperator(task_id="create_crawler", config=description, aws_conn_id=CONNECTION_ID)
    update_crawler = GlueCrawlerUpdateOperator(task_id="update_crawler", config=description, aws_conn_id=CONNECTION_ID)
    run_crawler = GlueCrawlerRunOperator(
        task_id="run_crawler",
        crawler_name=description["Name"],
        aws_conn_id=CONNECTION_ID,
        # a retry waits for the run that the first try began
        fail_on_already_running=False,
        trigger_rule="none_failed_min_one_success",
    )
    export_features() >> way >> description
    way >> publish() >> proven
    find_crawler(description["Name"]) >> [create_crawler, update_crawler] >> run_crawler >> proven


crawl_catalog()
