"""# stream_reset

Makes the stream's checkpoint anew from what bronze holds, for a checkpoint that is lost or cannot be read: says what it
would do, asks a person, stops the stream, puts the old checkpoints aside, starts the stream behind the last record of
each partition that bronze has. The stream stands still only while task reset has the slot of pool `spark`, not while
it waits for that or for another try.

**Reads** bronze.*, Kafka's offsets · **Writes** the checkpoints of the bronze queries; the old ones lie beside them
under `reset/` · **Schedule** none: by hand

**By hand** *Trigger*. The run waits at task approve: *Required Actions* shows it; Approve or Reject. Or fill in your
name as `approved_by`, which is the approval: the only way with `scripts/airflow dags test stream_reset -c
'{"approved_by": "ada"}'`. `topics` limits it to some of trades, ticker, prices, candles.
**Refused** where a record would be lost or doubled: Kafka has forgotten what was never read, a topic was made anew, or
a table lacks or repeats an offset. The message of task plan says which; nothing is changed then.
**Rerun** safe: it begins where bronze ends, each time. The live queries keep theirs: their tables are keyed.
**Backfill** makes no sense here.
**When it fails** before task reset, nothing was changed. Task reset starts the stream again whatever came of the reset,
and task start where reset was killed, or the whole run was marked. *Clear task* on reset does it again; by itself it is
tried again only where the stream could not be stopped or somebody held its lock. A checkpoint that was put aside is
moved back by hand while the stream is stopped.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out
from marketflow_airflow.reset import APPROVE, RESET, CheckpointReset, ResetApproval, StreamStart
from marketflow_airflow.spark import SparkJobOperator

TOPICS = ("trades", "ticker", "prices", "candles")
PARAMS = {
    "approved_by": Param(
        None,
        type=["null", "string"],
        title="Approved by",
        description="Your name: the run then asks nobody. Empty: it waits for Approve.",
    ),
    "topics": Param([], type="array", items={"type": "string", "enum": list(TOPICS)}, title="Topics (empty: all)"),
}


@dag(
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=1),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SERVICES, Tag.BRONZE],
)
def stream_reset():
    chosen = "{{ '--topics=' ~ params.topics | join(',') if params.topics else '' }}"
    # one where a person looks on: what is refused is refused again; two where somebody may hold the stream's lock
    plan = SparkJobOperator(task_id="plan", job="stream_reset", arguments=["--plan", chosen], retries=1)
    approve = ResetApproval(
        task_id=APPROVE,
        subject="Begin the stream's checkpoint anew behind what bronze holds?",
        body="Where each query would begin, and how many records of Kafka it would read then:\n\n"
        "{% for one in ti.xcom_pull(task_ids='plan') %}"
        "- **{{ one.query }}**: {{ one.unread }} records of {{ one.topic }}, from offset"
        "{% for partition, offset in one.offsets.items() %}"
        "{{ ',' if not loop.first }} {{ offset }} of partition {{ partition }}"
        "{% endfor %}\n{% endfor %}",
        response_timeout=timedelta(hours=20),
        retries=1,
    )
    reset = CheckpointReset(
        task_id=RESET,
        arguments=["--approved-by", "{{ (ti.xcom_pull(task_ids='approve') or {}).responded_by_user.name }}", chosen],
        retries=2,
    )
    start = StreamStart(task_id="start", retries=1, execution_timeout=timedelta(minutes=5))
    # a teardown runs whatever came of the others, also where somebody marks the whole run
    plan >> approve >> reset >> start.as_teardown(on_failure_fail_dagrun=True)


stream_reset()
