"""The service manager on AWS: the stream is an EMR Serverless streaming job, producers are ECS services.

Clients are passed in (boto3 `emr-serverless`, `ecs` and `logs`), so nothing here knows of credentials.
Tested only against botocore's models of the requests and answers, never against a real account.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from marketflow.services.backend import ServiceError, ServiceState, ServiceStatus

_STREAM_STATES: dict[str, ServiceState] = {
    "SUBMITTED": "starting",
    "PENDING": "starting",
    "SCHEDULED": "starting",
    "QUEUED": "starting",
    "RUNNING": "running",
    "CANCELLING": "running",
    "CANCELLED": "stopped",
    "SUCCESS": "stopped",
    "FAILED": "failed",
}
# In these a new run may be started: the earlier one writes no more.
_ENDED = ("CANCELLED", "SUCCESS", "FAILED")
_HASH_TAG = "marketflow:configuration"


@dataclass(frozen=True)
class StreamJob:
    """The stream as EMR Serverless runs it. `configuration_hash` becomes a tag, so that a change can be seen."""

    service: str
    application_id: str
    execution_role_arn: str
    entry_point: str
    arguments: tuple[str, ...] = ()
    spark_submit_parameters: str = ""
    configuration_overrides: Mapping[str, Any] = field(default_factory=dict)
    configuration_hash: str = ""
    stop_grace_s: int = 60
    log_group: str | None = None


@dataclass(frozen=True)
class Producer:
    """One producer as an ECS service. More than one task of it would publish everything twice."""

    service: str
    cluster: str
    ecs_service: str
    log_group: str | None = None


class AwsServiceBackend:
    """Start and stop by EMR Serverless and ECS; both do the restarting themselves."""

    def __init__(
        self,
        *,
        emr_serverless: Any,
        ecs: Any,
        logs: Any,
        stream: StreamJob,
        producers: Sequence[Producer] = (),
    ) -> None:
        self._emr, self._ecs, self._logs = emr_serverless, ecs, logs
        self._stream = stream
        self._producers = {producer.service: producer for producer in producers}

    def status(self) -> dict[str, ServiceStatus]:
        """The stream and every producer."""
        found = {name: self._producer_status(producer) for name, producer in self._producers.items()}
        return {self._stream.service: self._stream_status(), **found}

    def start(self, name: str) -> bool:
        """Start it; False when it was started already."""
        if name == self._stream.service:
            return self._start_stream()
        return self._scale(self._producer(name), 1)

    def stop(self, name: str) -> bool:
        """Ask it to stop; False when it was stopped already. AWS takes its time: `status` says when it has ended."""
        if name != self._stream.service:
            return self._scale(self._producer(name), 0)
        run = self._latest_run()
        if run is None or run["state"] in (*_ENDED, "CANCELLING"):
            return False
        self._emr.cancel_job_run(
            applicationId=self._stream.application_id,
            jobRunId=run["id"],
            shutdownGracePeriodInSeconds=self._stream.stop_grace_s,
        )
        return True

    def restart(self, name: str) -> None:
        """A producer is replaced by ECS. The stream is asked to stop; start it once the old run has ended.

        Two runs of the stream on one checkpoint must never overlap, and waiting for minutes is the caller's to do.
        """
        if name == self._stream.service:
            if not self.stop(name):
                self.start(name)
            return
        producer = self._producer(name)
        self._ecs.update_service(
            cluster=producer.cluster, service=producer.ecs_service, desiredCount=1, forceNewDeployment=True
        )

    def discard(self, name: str) -> None:
        """Ask it to stop. What is no longer wanted at AWS is removed by whoever made it."""
        self.stop(name)

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """The last lines of the newest log stream in its CloudWatch group."""
        group = self._stream.log_group if name == self._stream.service else self._producer(name).log_group
        if group is None:
            raise ServiceError(f"{name} has no CloudWatch log group: name one in its definition")
        newest = self._logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True, limit=1)[
            "logStreams"
        ]
        if not newest:
            return []
        events = self._logs.get_log_events(
            logGroupName=group, logStreamName=newest[0]["logStreamName"], limit=lines, startFromHead=False
        )["events"]
        return [event["message"].rstrip("\n") for event in events]

    # the stream

    def _latest_run(self) -> dict[str, Any] | None:
        """The newest streaming run with the service's name, or None."""
        arguments: dict[str, Any] = {"applicationId": self._stream.application_id, "mode": "STREAMING"}
        runs: list[dict[str, Any]] = []
        while True:
            page = self._emr.list_job_runs(**arguments)
            runs += [run for run in page["jobRuns"] if run.get("name") == self._stream.service]
            if "nextToken" not in page:
                return max(runs, key=lambda run: run["createdAt"], default=None)
            arguments["nextToken"] = page["nextToken"]

    def _start_stream(self) -> bool:
        """Start a run unless one is active.

        The token is made of the last run's id: two callers that saw the same last run start one run between them,
        and a start after a stop still is a new one.
        """
        last = self._latest_run()
        if last is not None and last["state"] == "CANCELLING":
            raise ServiceError(f"the last run {last['id']} of {self._stream.service} is still stopping: try again")
        if last is not None and last["state"] not in _ENDED:
            return False
        stream = self._stream
        identity = (stream.application_id, stream.service, stream.configuration_hash, last["id"] if last else "first")
        driver: dict[str, Any] = {"entryPoint": stream.entry_point, "entryPointArguments": list(stream.arguments)}
        if stream.spark_submit_parameters:
            driver["sparkSubmitParameters"] = stream.spark_submit_parameters
        request: dict[str, Any] = {
            "applicationId": stream.application_id,
            "clientToken": hashlib.sha256("|".join(identity).encode()).hexdigest(),
            "executionRoleArn": stream.execution_role_arn,
            "name": stream.service,
            "mode": "STREAMING",
            "jobDriver": {"sparkSubmit": driver},
            "tags": {_HASH_TAG: stream.configuration_hash},
        }
        if stream.configuration_overrides:
            request["configurationOverrides"] = dict(stream.configuration_overrides)
        self._emr.start_job_run(**request)
        return True

    def _stream_status(self) -> ServiceStatus:
        last = self._latest_run()
        if last is None:
            return ServiceStatus(self._stream.service, "stopped", detail="never started")
        run = self._emr.get_job_run(applicationId=self._stream.application_id, jobRunId=last["id"])["jobRun"]
        state = _STREAM_STATES.get(run["state"], "unknown")
        since: datetime = run["createdAt"] if state in ("starting", "running") else run["updatedAt"]
        return ServiceStatus(
            name=self._stream.service,
            state=state,
            since=since,
            uptime_s=(datetime.now(UTC) - since).total_seconds() if state == "running" else None,
            detail=f"run {run['jobRunId']} is {run['state']}: {run['stateDetails']}".rstrip(": "),
            configuration_hash=run.get("tags", {}).get(_HASH_TAG) or None,
        )

    # producers

    def _producer(self, name: str) -> Producer:
        if name not in self._producers:
            known = ", ".join((self._stream.service, *self._producers))
            raise ServiceError(f"no service {name!r}; there are {known}")
        return self._producers[name]

    def _describe(self, producer: Producer) -> dict[str, Any]:
        answer = self._ecs.describe_services(cluster=producer.cluster, services=[producer.ecs_service])
        if answer["failures"] or not answer["services"]:
            raise ServiceError(f"ECS has no service {producer.ecs_service} in {producer.cluster}: {answer['failures']}")
        service: dict[str, Any] = answer["services"][0]
        return service

    def _scale(self, producer: Producer, count: int) -> bool:
        if self._describe(producer)["desiredCount"] == count:
            return False
        self._ecs.update_service(cluster=producer.cluster, service=producer.ecs_service, desiredCount=count)
        return True

    def _producer_status(self, producer: Producer) -> ServiceStatus:
        service = self._describe(producer)
        wanted, running = service["desiredCount"], service["runningCount"]
        primary: dict[str, Any] = next((one for one in service["deployments"] if one["status"] == "PRIMARY"), {})
        failed = int(primary.get("failedTasks", 0))
        state: ServiceState = "stopped"
        if running > 0:
            state = "running"
        elif wanted > 0:
            state = "backoff" if failed else "starting"
        since = primary.get("updatedAt")
        return ServiceStatus(
            name=producer.service,
            state=state,
            since=since,
            uptime_s=(datetime.now(UTC) - since).total_seconds() if state == "running" and since else None,
            detail=f"{running} of {wanted} tasks run" + (f", {failed} failed" if failed else ""),
        )
