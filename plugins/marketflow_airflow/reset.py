"""What Dag stream_reset is made of: an approval that a run may bring with it, and a job for which the stream stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.notify import KnownFailure, tell
from marketflow_airflow.service_round import Request
from marketflow_airflow.services import ServicesHook, StreamOperator
from marketflow_airflow.spark import SparkJobOperator
from marketflow_airflow.stream_watch import STREAM
from marketflow_airflow.trial import is_trial

APPROVED_BY = "approved_by"
APPROVE = "approve"
RESET = "reset"
FORM = (APPROVED_BY, "topics")


def approver(context: Mapping[str, Any]) -> str:
    """Who took the responsibility: the name in the form, or the person who pressed Approve."""
    named = (context["params"].get(APPROVED_BY) or "").strip()
    if named:
        return named
    answer = context["ti"].xcom_pull(task_ids=APPROVE) or {}
    user = answer.get("responded_by_user") or {}
    return str(user.get("name") or "somebody in the UI")


class ResetApproval(ApprovalOperator):
    """Asks a person, without holding a slot; not where the run was started with a name in `approved_by`."""

    def __init__(self, **kwargs: Any) -> None:
        """A Reject is a failure: the run was started to reset."""
        super().__init__(fail_on_reject=True, **kwargs)

    def execute(self, context: Any) -> Any:
        """Go on with the given name, or wait for somebody."""
        refuse_unknown(context, FORM)
        named = (context["params"].get(APPROVED_BY) or "").strip()
        if named:
            self.log.info("approved by %s, who started the run", named)
            return {"responded_by_user": {"name": named}}
        if is_trial():
            raise AirflowFailException(
                "nobody can be asked in `airflow dags test`: give your name with "
                f'-c \'{{"{APPROVED_BY}": "…"}}\', or trigger the Dag in the UI'
            )
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """The answer; a Reject ends the run, and is not asked again."""
        try:
            return super().execute_complete(context, event)
        except HITLRejectException:
            raise KnownFailure("rejected: nothing was changed") from None


def asked_by(context: Mapping[str, Any]) -> str:
    """The approver, and the run that acts for them: as ops.service_desired has it."""
    run = context["dag_run"]
    return f"{approver(context)}, {run.dag_id} {run.run_id}"


def switch(context: Mapping[str, Any], action: str) -> None:
    """Start or stop the stream in the approver's name, as the form of Dag market_stream does."""
    request = Request(service=STREAM, action=action, reason="", asked_by=asked_by(context))
    StreamOperator(task_id=action).round(context, request)


class CheckpointReset(SparkJobOperator):
    """Stops the stream, does the job, starts the stream: all with the slot of pool `spark`, whatever the job says.

    So each try, and the task cleared later, is whole, and between two tries the stream runs.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Only a lock that is held is worth another try: what a reset refuses, it refuses again."""
        super().__init__(job="stream_reset", retry_only_when_busy=True, **kwargs)

    def execute(self, context: Mapping[str, Any]) -> Any:
        """What the job says of each query."""
        switch(context, "stop")
        try:
            if self.told_to_end:
                raise AirflowFailException("ended while the stream was being stopped: nothing was changed")
            done = super().execute(context)
        except BaseException as error:  # a task whose time is over too
            self.on_kill()
            why = str(error) or f"the job was cut short: {type(error).__name__}"
            try:
                switch(context, "start")
            except Exception as second:
                # as the checkpoint was, it may well not start: why there was no reset comes first
                why += f". And the stream does not start: {second}"
            raise (type(error) if isinstance(error, AirflowException) else AirflowFailException)(why) from error
        try:
            switch(context, "start")
        except Exception as error:
            raise AirflowFailException(f"the checkpoint was reset, and the stream does not start: {error}") from error
        return done


class StreamStart(BaseOperator):
    """Starts the stream where task reset was killed before it could; no run is well without a reset."""

    def execute(self, context: Mapping[str, Any]) -> None:
        """One round, if the wish of this run that the stream stands still is still in force."""
        from marketflow.services.desired import read_desired
        from marketflow.warehouse.connection import connect

        with connect(ServicesHook().get_settings()) as connection:
            wish = read_desired(connection).get(STREAM)
        if wish and (wish.desired, wish.set_by) == ("stopped", asked_by(context)):
            switch(context, "start")
        run = context["dag_run"]
        states = context["ti"].get_task_states(dag_id=run.dag_id, task_ids=[RESET], run_ids=[run.run_id])
        became = states.get(run.run_id, {}).get(RESET)
        if became == "failed" and not is_trial():
            # where it was killed it could not say so itself; where it did, this is no news
            tell(f"task:{run.dag_id}.{RESET}", f"{run.dag_id}.{RESET} failed", context)
        if became != "success":
            raise KnownFailure(f"task {RESET} is {became}: its log, or the plan's, says what was done and why")
